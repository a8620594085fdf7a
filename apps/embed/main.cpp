#include <cstdio>

#include <tandem/tandem.h>
using namespace tandem;

int main() {
  const auto [train, test] = split(make_digits(6000, /*seed=*/1), 1000);
  for (bool batch_norm : {false, true}) {
    Sequential model(/*seed=*/1);  // the same initial weights in both
    model.add<Flatten>();
    model.add<Dense>(28 * 28, 128);
    if (batch_norm) model.add<BatchNorm>(128);
    model.add<ReLU>();
    model.add<Dense>(128, 10);
    SGD sgd(model.parameters(), {.lr = 0.1, .momentum = 0.9});
    for (const auto& [x, y] : DataLoader(train, {.batch_size = 64, .seed = 1})) {
      sgd.zero_grad();
      cross_entropy(model(x), y).backward();
      sgd.step();
    }
    model.eval();
    const Batch all = DataLoader(test, {.batch_size = test.size()}).batch(0, 0);
    std::printf("batch norm %d: test loss %.3f\n", batch_norm, cross_entropy(model(all.x), all.y).item());
  }
}
