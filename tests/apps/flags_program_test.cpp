// Every flag of training reaches the loop: a run of the program against the same steps written with the library.
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>

#include "../catch.hpp"
#include "program.h"
#include "tandem/core/ops.h"
#include "tandem/core/safetensors.h"
#include "tandem/data/data_loader.h"
#include "tandem/data/mnist.h"
#include "tandem/layers/build.h"
#include "tandem/optim/optimizer.h"
#include "tandem/optim/schedule.h"

using namespace tandem;
using namespace tandem::test;

namespace {

constexpr int64_t steps = 5;

// The loop of a user of the library, with the program's defaults.
struct Loop {
  std::string layers = "dense:16,bn,relu,dense:10";
  Init init = Init::he_normal();
  std::string dataset = "mnist";
  DataLoaderOptions data{.batch_size = 40, .shuffle = true, .seed = 1, .last_batch = LastBatch::drop};
  std::function<std::unique_ptr<Optimizer>(Module&)> optimizer = [](Module& m) {
    return std::make_unique<SGD>(m.parameters(), SGDOptions{.lr = 0.1, .momentum = 0.9});
  };
  double lr = 0.1;
  Schedule schedule{.kind = Schedule::Kind::cosine, .total_steps = steps, .step_size = 1};
  double label_smoothing = 0, clip = 0;

  StateDict run(const std::string& folder) const {
    const Dataset all = load_mnist(folder, Split::train, dataset);
    const Dataset train = split(all, all.size() / 12).first;
    const DataLoader loader(train, data);
    const auto model = build(layers, {28, 28, 1}, {.seed = 1, .init = init, .dtype = data.dtype});
    const auto optimizer_of_model = optimizer(*model);
    for (int64_t step = 0; step < steps; ++step) {
      const Batch batch = loader.batch(step / loader.batches(), step % loader.batches());
      optimizer_of_model->set_lr(lr * schedule.factor(step));
      optimizer_of_model->zero_grad();
      cross_entropy((*model)(batch.x), batch.y, {.label_smoothing = label_smoothing}).backward();
      if (clip > 0) clip_grad_norm(model->parameters(), clip);
      optimizer_of_model->step();
    }
    return model->state_dict();
  }
};

template <class O, class Options>
auto with(Options options) {
  return [=](Module& m) { return std::make_unique<O>(m.parameters(), options); };
}

struct Case {
  std::string flags;
  Loop loop;
};

Loop changed(const std::function<void(Loop&)>& change) {
  Loop loop;
  change(loop);
  return loop;
}

Loop network(const std::string& name, bool bn = true, double lr = 0.1) {
  return changed([&](Loop& l) {
    const ModelText text = model_text(name, bn);
    l.layers = text.layers;
    l.init = text.init;
    l.lr = lr;
  });
}

Loop optimizer(std::function<std::unique_ptr<Optimizer>(Module&)> make, double lr) {
  return changed([&](Loop& l) {
    l.optimizer = std::move(make);
    l.lr = lr;
  });
}

std::vector<Case> cases() {
  const auto data = [](auto change) { return changed([&](Loop& l) { change(l.data); }); };
  const auto schedule = [](auto change) { return changed([&](Loop& l) { change(l.schedule); }); };
  using Kind = Schedule::Kind;
  return {
      {"", {}},
      {"--optimizer adam", optimizer(with<Adam>(AdamOptions{}), 0.001)},
      {"--optimizer adamw", optimizer(with<AdamW>(AdamWOptions{.weight_decay = 0.01}), 0.001)},
      {"--nesterov --momentum 0.8", optimizer(with<SGD>(SGDOptions{.momentum = 0.8, .nesterov = true}), 0.1)},
      {"--weight-decay 0.1", optimizer(with<SGD>(SGDOptions{.momentum = 0.9, .weight_decay = 0.1}), 0.1)},
      {"--weight-decay 0.1 --decay all",
       optimizer(with<SGD>(SGDOptions{.momentum = 0.9, .weight_decay = 0.1, .decay = Decay::all}), 0.1)},
      {"--clip 0.5", changed([](Loop& l) { l.clip = 0.5; })},
      {"--label-smoothing 0.2", changed([](Loop& l) { l.label_smoothing = 0.2; })},
      {"--shift 3", data([](DataLoaderOptions& d) { d.shift = 3; })},
      {"--batch-size 30 --last-batch keep", data([](DataLoaderOptions& d) {
         d.batch_size = 30;
         d.last_batch = LastBatch::keep;
       })},
      {"--batch-size 30 --last-batch merge", data([](DataLoaderOptions& d) {
         d.batch_size = 30;
         d.last_batch = LastBatch::merge;
       })},
      {"--schedule constant", schedule([](Schedule& s) { s.kind = Kind::constant; })},
      {"--schedule step --step-size 2 --gamma 0.5", schedule([](Schedule& s) {
         s.kind = Kind::step;
         s.step_size = 2;
         s.gamma = 0.5;
       })},
      {"--schedule one-cycle", schedule([](Schedule& s) { s.kind = Kind::one_cycle; })},
      {"--warmup 3", schedule([](Schedule& s) { s.warmup_steps = 3; })},
      {"--dtype float64", data([](DataLoaderOptions& d) { d.dtype = Dtype::float64; })},
      {"--dataset fashion-mnist", changed([](Loop& l) { l.dataset = "fashion-mnist"; })},
      {"--model mlp", network("mlp")},
      {"--model w1 --batch-size 40", network("w1")},
      {"--model w2 --bn off", network("w2", false)},
      {"--model w3", network("w3", true, 0.05)},
      {"--model lenet", network("lenet", true, 0.05)},
  };
}

}  // namespace

TEST_CASE("Every flag of training does what the library does with that option") {
  const TempDir dir;
  write_small_mnist(dir.file("data/mnist"), 120, 20);  // 110 to train, so the last batch is not full
  write_small_mnist(dir.file("data/fashion-mnist"), 110, 20);
  for (const Case& c : cases()) {
    INFO(c.flags);
    std::vector<std::string> words = {"train",       "--dataset", "mnist",        "--data", "data",
                                      "--max-steps", "5",         "--batch-size", "40",     "--eval-every",
                                      "5",           "--out",     "run",          "--force"};
    std::istringstream flags(c.flags);
    for (std::string word; flags >> word;) words.push_back(word);
    if (c.flags.find("--model") == std::string::npos)
      words.insert(words.end(), {"--layers", "dense:16,bn,relu,dense:10"});
    const Outcome outcome = tandem_program(dir, words);
    INFO(outcome.err);
    REQUIRE(outcome.exit_code == 0);
    const SafeTensors file = read_safetensors(dir.file("run/model.safetensors"));
    std::map<std::string, Tensor> got(file.tensors.begin(), file.tensors.end());
    const StateDict expected = c.loop.run(dir.file("data"));
    CHECK(got.size() == expected.size());
    for (const auto& [name, tensor] : expected) {
      INFO(name);
      CHECK((bytes(got[name]) == bytes(tensor)));
    }
  }
}
