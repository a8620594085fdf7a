// Modules and layers: names, state, copies, modes, and what they say when something does not fit.
#include <cmath>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/autograd.h"
#include "tandem/core/error.h"
#include "tandem/layers/activation.h"
#include "tandem/layers/batch_norm.h"
#include "tandem/layers/conv2d.h"
#include "tandem/layers/dense.h"
#include "tandem/layers/module.h"
#include "tandem/layers/pool.h"
#include "tandem/layers/sequential.h"

using namespace tandem;
using namespace tandem::test;

namespace {

// A user's own layer: y = x + norm(dense(x)).
class Residual : public Module {
 public:
  explicit Residual(int64_t width) : width_(width), dense(width, width), norm(width) {}
  Tensor forward(const Tensor& x) override { return x + norm(dense(x)); }
  Shape output_shape(const Shape& x) const override { return norm.output_shape(dense.output_shape(x)); }
  std::string kind() const override { return "residual"; }
  void members(MemberVisitor& v) override {
    v.child("dense", dense);
    v.child("norm", norm);
  }
  std::unique_ptr<Module> clone() const override { return copy_of(*this, width_); }

 private:
  int64_t width_;

 public:
  Dense dense;
  BatchNorm norm;
};

class Unclonable : public Module {
 public:
  Tensor forward(const Tensor& x) override { return x; }
  Shape output_shape(const Shape& x) const override { return x; }
  std::string kind() const override { return "unclonable"; }
};

// One layer of everything, for [N, 8, 8, 2].
Sequential everything(uint64_t seed = 1) {
  Sequential model(seed);
  model.add(Conv2d(2, 4, {.kernel = 3, .padding = 1}));
  model.add<BatchNorm>(4);
  model.add<ReLU>();
  model.add<MaxPool2d>();
  model.add(AvgPool2d({.kernel = 2}));
  model.add<Flatten>();
  model.add<Dropout>(0.5);
  model.add<Dense>(16, 6);
  model.add(BatchNorm::keras(6));
  model.add<Sigmoid>();
  model.add<Residual>(6);
  model.add<Tanh>();
  model.add<Dense>(6, 3);
  return model;
}

// "conv1.weight conv1.bias"
std::string names_of(const StateDict& state) {
  std::string names;
  for (const auto& [name, tensor] : state) names += (names.empty() ? "" : " ") + name;
  return names;
}

std::vector<std::vector<uint8_t>> bytes_of(const StateDict& state) {
  std::vector<std::vector<uint8_t>> all;
  for (const auto& [name, tensor] : state) all.push_back(bytes(tensor));
  return all;
}

StateDict copy_of(const StateDict& state) {
  StateDict copy;
  for (const auto& [name, tensor] : state) copy.emplace_back(name, tensor.detach().clone());
  return copy;
}

}  // namespace

TEST_CASE("Unnamed layers are numbered by kind, and nested names are paths") {
  Sequential model = everything();
  CHECK(names_of(model.state_dict()) ==
        "conv1.weight conv1.bias bn1.weight bn1.bias bn1.running_mean bn1.running_var bn1.num_batches_tracked "
        "dense1.weight dense1.bias bn2.weight bn2.bias bn2.running_mean bn2.running_var bn2.num_batches_tracked "
        "residual1.dense.weight residual1.dense.bias residual1.norm.weight residual1.norm.bias "
        "residual1.norm.running_mean residual1.norm.running_var residual1.norm.num_batches_tracked "
        "dense2.weight dense2.bias");
  CHECK(model[10].name() == "residual1");
  CHECK(static_cast<Residual&>(model[10]).norm.name() == "residual1.norm");
}

TEST_CASE("A name given by hand, a container's name and a Sequential in a Sequential make paths") {
  auto block = std::make_unique<Sequential>(5);
  block->append(std::make_unique<Dense>(4, 4), "first");
  Sequential model(5);
  Module& placed = model.append(std::move(block), "block");
  static_cast<Sequential&>(placed).add<Dense>(4, 2);
  CHECK(names_of(model.state_dict()) == "block.first.weight block.first.bias block.dense2.weight block.dense2.bias");
  CHECK(error_of([&] { model(ones({3, 5})); }) == "Dense \"block.first\": expected x[N, 4], got x[3, 5] (4 vs 5)");
  // Values depend on the full name: a layer of this path draws the same anywhere.
  Dense alone(4, 2);
  alone.set_name("block.dense2");
  alone.init(5);
  CHECK(bytes(alone.weight) == bytes(model.parameters()[2].tensor));
}

TEST_CASE("Names that are taken or hold a dot are refused") {
  Sequential model;
  model.add<ReLU>();
  CHECK(error_of([&] { model.append(std::make_unique<Tanh>(), "relu1"); }) ==
        "Sequential: the name \"relu1\" is taken; give the layer another");
  CHECK(error_of([&] { model.append(std::make_unique<Tanh>(), "a.b"); }) ==
        "Sequential: a layer's name must not hold a '.', got \"a.b\"");
  CHECK(error_of([&] { model.append(nullptr); }) == "Sequential: expected a layer, got a null pointer");
  CHECK(model.size() == 1);
}

TEST_CASE("Parameters carry the role that their layer gives them") {
  Sequential model = everything();
  std::string roles;
  for (const Parameter& p : model.parameters()) {
    roles += p.role == Role::weight ? 'w' : p.role == Role::bias ? 'b' : 'n';
    CHECK(p.tensor.requires_grad());
  }
  CHECK(roles == "wbnnwbnnwbnnwb");
}

TEST_CASE("A clone has the same values, names and modes, and shares nothing") {
  Sequential model = everything();
  model[0].set_requires_grad(false);
  model[1].eval();
  const Tensor x = random({4, 8, 8, 2}, 3);
  sum(model(x)).backward();
  const std::unique_ptr<Module> copy = model.clone();
  const StateDict ours = model.state_dict(), theirs = copy->state_dict();
  CHECK(names_of(ours) == names_of(theirs));
  CHECK(bytes_of(ours) == bytes_of(theirs));
  for (size_t i = 0; i < ours.size(); ++i) {
    CHECK(ours[i].second.requires_grad() == theirs[i].second.requires_grad());
    CHECK(View(ours[i].second).data != View(theirs[i].second).data);
    CHECK(!theirs[i].second.grad().defined());
  }
  auto& layers = static_cast<Sequential&>(*copy);
  CHECK(!layers[1].is_training());
  CHECK(layers[0].is_training());
  CHECK(layers[7].name() == "dense1");
  CHECK(static_cast<Residual&>(layers[10]).norm.name() == "residual1.norm");
  CHECK(bytes((*copy)(x)) == bytes(model(x)));  // the next dropout mask too
  const auto before = bytes_of(copy->state_dict());
  for (auto& [name, tensor] : model.state_dict()) Tensor(tensor).fill(7);
  CHECK(bytes_of(copy->state_dict()) == before);
}

TEST_CASE("A clone keeps on drawing as its original would") {
  Sequential model(9);
  model.add<Dense>(3, 3);
  const auto copy = model.clone();
  model.add<Dense>(3, 3);
  static_cast<Sequential&>(*copy).add<Dense>(3, 3);
  CHECK(bytes_of(copy->state_dict()) == bytes_of(model.state_dict()));
}

TEST_CASE("A user's module that does not say how it is copied is refused by name") {
  Sequential model;
  model.add<Unclonable>();
  CHECK(error_of([&] { model.clone(); }) ==
        "clone: unclonable \"unclonable1\" does not say how it is copied; override Module::clone");
}

TEST_CASE("A model can be moved, and returned from a function") {
  Sequential model = everything(4);
  const auto before = bytes_of(model.state_dict());
  Sequential moved = std::move(model);
  CHECK(bytes_of(moved.state_dict()) == before);
  moved.add<ReLU>();
  CHECK(moved[13].name() == "relu2");
}

TEST_CASE("train and eval reach every layer, and layers added later follow") {
  Sequential model = everything();
  CHECK(model.is_training());
  model.eval();
  CHECK(!static_cast<Residual&>(model[10]).norm.is_training());
  CHECK(!model.add<BatchNorm>(3).is_training());
  model.train();
  CHECK(static_cast<Residual&>(model[10]).norm.is_training());
}

TEST_CASE("to(dtype) converts parameters, gradients and statistics in place") {
  Sequential model = everything();
  const Tensor x = random({4, 8, 8, 2}, 3);
  sum(model(x)).backward();
  Tensor held = model.parameters()[0].tensor;
  const std::vector<double> weights = values(held), grads = values(held.grad());
  model.to(Dtype::float64);
  CHECK(held.dtype() == Dtype::float64);  // a handle held elsewhere follows
  CHECK(values(held) == weights);
  CHECK(held.grad().dtype() == Dtype::float64);
  CHECK(values(held.grad()) == grads);
  CHECK(held.requires_grad());
  for (const Buffer& b : model.buffers()) {
    const bool counts = b.name.ends_with("num_batches_tracked") || b.name.ends_with("skipped_updates") ||
                        b.name.find("call") != std::string::npos;
    CHECK(b.tensor.dtype() == (counts ? Dtype::int64 : Dtype::float64));
  }
  CHECK(model(x.to(Dtype::float64)).dtype() == Dtype::float64);
  CHECK(error_of([&] { model.to(Dtype::int32); }) == "to: a model computes in float32 or float64, got int32");
  CHECK_THROWS_AS(model.to(Device::cuda()), DeviceError);
  CHECK(held.dtype() == Dtype::float64);
}

TEST_CASE("init draws again what the constructor drew, and resets the statistics") {
  Sequential model = everything(4);
  const auto fresh = bytes_of(model.state_dict());
  model(random({4, 8, 8, 2}, 3));
  model.parameters()[0].tensor.fill(0);
  CHECK(bytes_of(model.state_dict()) != fresh);
  model.init(4);
  CHECK(bytes_of(model.state_dict()) == fresh);
  model.init(5);
  CHECK(bytes_of(model.state_dict()) != fresh);
}

TEST_CASE("NoInit leaves values to whoever gives them") {
  Dense dense(3, 3);
  dense.weight.fill(2);
  {
    const NoInit no_init;
    dense.init(1);
  }
  CHECK(values(dense.weight) == std::vector<double>(9, 2));
  dense.init(1);
  CHECK(values(dense.weight) != std::vector<double>(9, 2));
}

TEST_CASE("A state dict goes into another model of the same layers") {
  Sequential from = everything(1), to = everything(2);
  from(random({4, 8, 8, 2}, 3));
  to.load_state_dict(from.state_dict());
  CHECK(bytes_of(to.state_dict()) == bytes_of(from.state_dict()));
  CHECK(View(to.state_dict()[0].second).data != View(from.state_dict()[0].second).data);
  CHECK(to.parameters()[0].tensor.requires_grad());
}

TEST_CASE("A state dict that does not fit is refused by name, and nothing is changed") {
  Sequential model = everything();
  const auto before = bytes_of(model.state_dict());
  const auto refused = [&](const StateDict& state, bool strict, const std::string& error) {
    CHECK(error_of([&] { model.load_state_dict(state, strict, "bn.safetensors"); }) == error);
    CHECK_THROWS_AS(model.load_state_dict(state, strict), ModelFileError);
    CHECK(bytes_of(model.state_dict()) == before);
  };
  const StateDict good = copy_of(everything(2).state_dict());
  StateDict state = good;
  state.erase(state.begin() + 5);
  refused(state, true, "load: bn.safetensors has no \"bn1.running_var\"; it holds 22 tensors, the model wants 23");
  state = good;
  state.emplace_back("bn9.weight", ones({2}));
  refused(state, true,
          "load: bn.safetensors has \"bn9.weight\", which the model has not; it holds 24 tensors, the model wants 23");
  for (const bool strict : {true, false}) {
    state = good;
    state.back().second = ones({4});
    refused(state, strict, "load: \"dense2.bias\" is [4] in bn.safetensors, the model wants [3]");
    state.back().second = ones({3}, {Dtype::int32});
    refused(state, strict, "load: \"dense2.bias\" is int32 in bn.safetensors, the model wants float32");
    state = good;
    state[6].second = ones({}, {Dtype::float32});
    refused(state, strict, "load: \"bn1.num_batches_tracked\" is float32 in bn.safetensors, the model wants int64");
    state = good;
    state.push_back(state.front());
    refused(state, strict, "load: bn.safetensors holds \"conv1.weight\" twice");
  }
}

TEST_CASE("Loading without strict takes what is on both sides") {
  Sequential model = everything(1);
  const auto before = bytes_of(model.state_dict());
  model.load_state_dict({{"conv1.bias", full({4}, 5)}, {"unknown", ones({1})}}, false);
  auto after = bytes_of(model.state_dict());
  CHECK(after[1] == bytes(full({4}, 5)));
  after[1] = before[1];
  CHECK(after == before);
}

TEST_CASE("A state without batch counts is taken, and float64 values are rounded") {
  BatchNorm bn(2);
  bn(random({4, 2}, 1));
  const std::vector<double> third{1.0 / 3, 2.0 / 3};
  StateDict state;
  for (const char* name : {"weight", "bias", "running_mean", "running_var"})
    state.emplace_back(name, Tensor::from(third, {2}));
  bn.load_state_dict(state);
  CHECK(bn.num_batches_tracked.item() == 1);
  CHECK(values(bn.running_var) == std::vector<double>{static_cast<float>(third[0]), static_cast<float>(third[1])});
}

TEST_CASE("Loading values between forward and backward is noticed") {
  Dense dense(2, 2);
  Tensor x = random({3, 2}, 1);
  x.set_requires_grad(true);
  const Tensor y = dense(x);
  dense.load_state_dict(copy_of(dense.state_dict()));
  CHECK_THROWS_AS(sum(y).backward(), ValueError);
}

TEST_CASE("A summary lists layers, shapes and parameters as Keras does") {
  Sequential model;
  model.add<Flatten>();
  const std::pair<int64_t, int64_t> sizes[] = {{784, 512}, {512, 256}, {256, 128}};
  for (const auto& [in, out] : sizes) {
    model.add(Dense(in, out, {.bias = false}));
    model.add<BatchNorm>(out);
    model.add<ReLU>();
  }
  model.add<Dense>(128, 10);
  CHECK("\n" + summary(model, {28, 28, 1}) == R"(
Layer               Kind        Output shape                  Parameters
------------------------------------------------------------------------
flatten1            flatten     [N, 784]                              0
dense1              dense       [N, 512]                        401,408
bn1                 bn          [N, 512]                          2,048
relu1               relu        [N, 512]                              0
dense2              dense       [N, 256]                        131,072
bn2                 bn          [N, 256]                          1,024
relu2               relu        [N, 256]                              0
dense3              dense       [N, 128]                         32,768
bn3                 bn          [N, 128]                            512
relu3               relu        [N, 128]                              0
dense4              dense       [N, 10]                           1,290
------------------------------------------------------------------------
Total parameters                                                 570,122
Trainable                                                        568,330
Non-trainable                                                      1,792
)");
  CHECK(error_of([&] {
          summary(model, {28, 27, 1});
        }) == "Dense \"dense1\": expected x[N, 784], got x[1, 756] (784 vs 756)");
}

TEST_CASE("A summary counts frozen parameters as fixed and stays within 80 columns") {
  Sequential model;
  model.append(std::make_unique<Residual>(4), "a_name_that_is_longer_than_its_column");
  model.append(std::make_unique<Dense>(4, 2), "head").set_requires_grad(false);
  CHECK("\n" + summary(model, {4}) == R"(
Layer               Kind        Output shape                  Parameters
------------------------------------------------------------------------
a_name_that_is_lo.. residual    [N, 4]                               36
head                dense       [N, 2]                               10
------------------------------------------------------------------------
Total parameters                                                      46
Trainable                                                             28
Non-trainable                                                         18
)");
  Residual alone(4);
  alone.set_name("alone");
  CHECK("\n" + summary(alone, {4}) == R"(
Layer               Kind        Output shape                  Parameters
------------------------------------------------------------------------
dense               dense       ?                                    20
norm                bn          ?                                    16
alone               residual    [N, 4]                               36
------------------------------------------------------------------------
Total parameters                                                      36
Trainable                                                             28
Non-trainable                                                          8
)");
}
