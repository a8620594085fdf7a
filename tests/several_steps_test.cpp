// Several training steps as one compiled step: learning rates from a tensor, batches from parts of an input.
#include <functional>
#include <memory>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/autograd.h"
#include "tandem/core/compile.h"
#include "tandem/core/ops.h"
#include "tandem/data/data_loader.h"
#include "tandem/layers/build.h"
#include "tandem/optim/optimizer.h"
#include "training.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Tensors = std::vector<Tensor>;
using Bytes = std::vector<std::vector<uint8_t>>;

Tensor parameter() { return random({4}, 7).set_requires_grad(true); }

}  // namespace

TEST_CASE("A step at a rate of a tensor is a step at that learning rate") {
  const std::vector<double> rates = {0.3, 0.1, 0.05};
  const Tensor given = Tensor::from(rates, {3});
  for (bool adam : {false, true}) {
    Tensor a = parameter(), b = parameter();
    const auto make = [&](Tensor p) -> std::unique_ptr<Optimizer> {
      const std::vector<ParameterGroup> groups = {{.parameters = {{"p", p, Role::weight}}, .lr_scale = 3}};
      if (adam) return std::make_unique<AdamW>(groups);
      return std::make_unique<SGD>(groups, SGDOptions{.momentum = 0.9});
    };
    const auto set = make(a), read = make(b);
    for (int64_t i = 0; i < 3; ++i) {
      for (Tensor p : {a, b}) p.set_grad(full({4}, 1 + static_cast<double>(i)));
      set->set_lr(rates[static_cast<size_t>(i)]);
      set->step();
      read->step(given, i);
    }
    CHECK(values(a) == values(b));
    CHECK(read->steps() == 3);
    for (Tensor p : {a, b}) p.set_grad(ones({4}));
    read->set_lr(0.05);
    set->step();
    read->step();  // at its own again
    CHECK(values(a) == values(b));
  }
  Tensor p = parameter();
  SGD sgd({{"p", p, Role::weight}});
  CHECK(error_of([&] { sgd.step(given, 3); }) == "SGD: expected rates[K] and one of them, got rates[3] and 3");
  CHECK(error_of([&] { sgd.step(zeros({2}), 0); }) == "SGD: expected rates of float64, got float32");
}

TEST_CASE("Several steps compiled as one equal as many single ones, wherever their inputs lie", "[compile]") {
  const int64_t together = 4, images = 6;
  const std::string layers = "conv:4:k=3,bn,relu,dropout:0.3,dense:10";
  std::vector<int32_t> labels;
  for (int32_t i = 0; i < 40; ++i) labels.push_back(i * 7 % 10);
  const Tensor pixels = Tensor::from(
      random({40, 8, 8, 1}, 1, Dtype::float32, 0, 255).to(Dtype::uint8).to_vector<uint8_t>(), {40, 8, 8, 1});
  const DataLoader loader(Dataset::from(pixels, Tensor::from(labels, {40})), {.batch_size = images, .shuffle = false});
  struct Trainer {
    explicit Trainer(const std::string& text) : model(build(text, {8, 8, 1}, {.seed = 3})), adam(model->parameters()) {}
    std::unique_ptr<Sequential> model;
    Adam adam;
  } many(layers), single(layers);
  const auto run = [&](Trainer& t, const Tensors& in, int64_t i) {
    const Batch b = loader.gather(in[0], {}, i * images, (i + 1) * images);
    t.adam.zero_grad();
    cross_entropy((*t.model)(b.x), b.y).backward();
    t.adam.step(in[1], i);
  };
  CompiledStep step(
      [&](const Tensors& in) -> Tensors {
        for (int64_t i = 0; i < together; ++i) run(many, in, i);
        return {};
      },
      {.keep_gradients = false, .poison = true});
  std::vector<Tensors> alive;  // so that the next ones are elsewhere
  for (int k = 0; k < 5; ++k) {
    std::vector<int32_t> rows;
    std::vector<double> rates;
    for (int i = 0; i < together * images; ++i) rows.push_back((i * 7 + k) % 40);
    for (int i = 0; i < together; ++i) rates.push_back(0.02 / (1 + i + k));
    alive.push_back({Tensor::from(rows, {together * images}), Tensor::from(rates, {together})});
    step(alive.back());
    for (int64_t i = 0; i < together; ++i) run(single, alive.back(), i);
  }
  CHECK(step.why_eager() == "");
  CHECK(step.plan().find("input1+8[1]") != std::string::npos);
  CHECK((state_bytes(*many.model) == state_bytes(*single.model)));
}

namespace {

// The same step compiled and eagerly, four times each; whether all of its results are the same. `why`: why it runs
// eagerly.
bool compiles_to_same(const std::function<CompiledStep::Function()>& make, std::string& why) {
  Bytes results[2];
  for (bool eager : {true, false}) {
    CompiledStep step(make(), {.eager = eager, .keep_gradients = false});
    for (uint64_t i = 0; i < 4; ++i) results[eager].push_back(bytes(step({random({6, 8}, i)})[0]));
    if (!eager) why = step.why_eager();
  }
  return results[0] == results[1];
}

// Two steps at the rate rates(gradient) has at 1; their loss.
CompiledStep::Function two_steps(const std::function<Tensor(const Tensor& gradient)>& rates) {
  const auto model = std::shared_ptr<Sequential>(build("dense:5,bn,relu,dense:3", {8}, {.seed = 1}));
  const auto sgd = std::make_shared<SGD>(model->parameters(), SGDOptions{.momentum = 0.9});
  const Tensor labels = Tensor::from(std::vector<int32_t>{0, 1, 2, 0, 1, 2}, {6});
  return [=](const Tensors& in) -> Tensors {
    Tensor loss;
    for (int i = 0; i < 2; ++i) {
      sgd->zero_grad();
      loss = cross_entropy((*model)(in[0]), labels);
      loss.backward();
      sgd->step(rates(model->parameters()[0].tensor.grad()), 1);
    }
    return {loss};
  };
}

}  // namespace

TEST_CASE("A step may change the rates that it then reads a part of", "[compile]") {
  std::string why;
  CHECK(compiles_to_same(
      [] {
        const Tensor kept = zeros({2}, {Dtype::float64});
        return two_steps([=](const Tensor& gradient) {
          Tensor rates = kept;
          rates.copy_from(expand(sum(gradient * gradient).detach().to(Dtype::float64), {2}));
          return rates;
        });
      },
      why));
  CHECK(why == "");
}

TEST_CASE("A step that reads a part of what it makes runs eagerly, and is the same", "[compile]") {
  const Warnings warnings;
  std::string why;
  CHECK(compiles_to_same(
      [] {
        return two_steps([](const Tensor& gradient) {
          return expand(sum(gradient * gradient).detach().to(Dtype::float64), {2}) * 2.0;
        });
      },
      why));
  CHECK(why == "compile: the step reads a part of a tensor that it made");
}

TEST_CASE("A step may join tensors", "[compile]") {
  std::string why;
  CHECK(compiles_to_same(
      [] { return [](const Tensors& in) -> Tensors {
             return {sum(concat({in[0] * 2.0, in[0]}))};
           }; }, why));
  CHECK(why == "");
}
