// A user's own op and own layer: both are used, checked and trained like the built-in ones.
#include <cmath>
#include <cstdio>

#include <tandem/tandem.h>
using namespace tandem;

// y = x sigmoid(x).  dx = dy s (1 + x (1 - s)), s = sigmoid(x).  (Swish, Ramachandran et al. 2017.)
Tensor swish(const Tensor& x) {
  Tensor y = empty_like(x);
  const float* in = x.data<float>();
  float* out = y.mutable_data<float>();
  for (int64_t i = 0; i < x.numel(); ++i) out[i] = in[i] / (1 + std::exp(-in[i]));
  return record("swish", y, {x}, [x = save(x)](const Tensor& dy) -> Grads {
    const Tensor s = sigmoid(x);
    return {dy * s * (1 + x.checked() * (1 - s))};
  });
}

// y = x + swish(BatchNorm(x W^T)), x[N, width].
class Residual : public Module {
 public:
  explicit Residual(int64_t width) : dense_(width, width, {.bias = false}), bn_(width) {}
  Tensor forward(const Tensor& x) override { return x + swish(bn_(dense_(x))); }
  Shape output_shape(const Shape& x) const override { return x; }
  std::string kind() const override { return "residual"; }
  void members(MemberVisitor& v) override {
    v.child("dense", dense_);
    v.child("bn", bn_);
  }

 private:
  Dense dense_;
  BatchNorm bn_;
};

// The largest difference between swish's gradient and central differences, for float32 x in [-3, 3].
double gradient_error() {
  Tensor x = zeros({64});
  fill_uniform(x, -3, 3, Stream(1, "x"));
  x.set_requires_grad(true);
  sum(swish(x)).backward();
  const NoGrad no_grad;
  const double h = 1e-2;
  const auto numeric = ((swish(x + h) - swish(x - h)) / (2 * h)).to_vector<float>();
  const auto exact = x.grad().to_vector<float>();
  double worst = 0;
  for (size_t i = 0; i < exact.size(); ++i) worst = std::fmax(worst, std::fabs(exact[i] - numeric[i]));
  return worst;
}

int main() {
  std::printf("swish: gradient error %.1e\n", gradient_error());
  const auto [train, test] = split(make_digits(6000, /*seed=*/1), 1000);
  Sequential model(/*seed=*/1);
  model.add<Flatten>();
  model.add<Dense>(28 * 28, 64);
  model.add<Residual>(64);
  model.add<Dense>(64, 10);
  std::printf("%s", summary(model, train.sample_shape()).c_str());
  Adam adam(model.parameters(), {.lr = 2e-3});
  DataLoader loader(train, {.batch_size = 64, .seed = 1});
  for (int epoch = 0; epoch < 2; ++epoch) {
    for (const auto& [x, y] : loader) {
      adam.zero_grad();
      cross_entropy(model(x), y).backward();
      adam.step();
    }
  }
  model.eval();
  const NoGrad no_grad;
  const Batch all = DataLoader(test, {.batch_size = test.size()}).batch(0, 0);
  std::printf("test loss %.3f\n", cross_entropy(model(all.x), all.y).item());
}
