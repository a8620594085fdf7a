// Modules: a model of a user's own, copies of every layer.
#include <utility>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"
#include "tandem/layers/activation.h"
#include "tandem/layers/batch_norm.h"
#include "tandem/layers/conv2d.h"
#include "tandem/layers/dense.h"
#include "tandem/layers/pool.h"
#include "tandem/layers/sequential.h"

using namespace tandem;
using namespace tandem::test;

namespace {

// A user's own model, of members alone.
class Net : public Module {
 public:
  Tensor forward(const Tensor& x) override { return second(b(first(a(x)))); }
  Shape output_shape(const Shape& x) const override { return x; }
  std::string kind() const override { return "net"; }
  void members(MemberVisitor& v) override {
    v.child("a", a);
    v.child("first", first);
    v.child("b", b);
    v.child("second", second);
  }

  Dropout a, b;
  Dense first{8, 8}, second{8, 8};
};

}  // namespace

TEST_CASE("init names the layers of a user's own model by their paths") {
  Net net;
  net.init(7);
  CHECK(net.first.name() == "first");
  CHECK(bytes(net.first.weight) != bytes(net.second.weight));
  const Tensor x = ones({1000});
  CHECK(bytes(net.a(x)) != bytes(net.b(x)));
  CHECK(error_of([&] { net(ones({3, 5})); }) == "Dense \"first\": expected x[N, 8], got x[3, 5] (8 vs 5)");
  Sequential model(7);
  model.add<Net>();
  CHECK(static_cast<Net&>(model[0]).second.name() == "net1.second");
}

TEST_CASE("Layers of a user's own model differ even before init") {
  Net net;
  CHECK(bytes(net.first.weight) != bytes(net.second.weight));
  const Tensor x = ones({1000});
  CHECK(bytes(net.a(x)) != bytes(net.b(x)));
}

TEST_CASE("A clone of any layer keeps its name and mode") {
  const auto check = [](Module&& layer) {
    layer.set_name("it");
    layer.eval();
    const auto copy = layer.clone();
    INFO(layer.kind());
    CHECK(copy->name() == "it");
    CHECK(!copy->is_training());
    CHECK(copy->text() == layer.text());
  };
  check(ReLU());
  check(Sigmoid());
  check(Tanh());
  check(Dropout(0.25));
  check(Flatten());
  check(MaxPool2d({.kernel = 3}));
  check(AvgPool2d({.kernel = 3}));
  check(GlobalAvgPool());
  check(Dense(2, 3));
  check(Conv2d(2, 3));
  check(BatchNorm(2));
  check(Sequential());
}

TEST_CASE("A clone copies each tensor once, however deep it lies") {
  struct Copies : LaunchObserver {
    void call(const char*) override { ++count; }
    void operand(const View&, Use) override {}
    int count = 0;
  };
  const auto copies = [](const Module& model) {
    Copies copies;
    LaunchObserver* before = set_launch_observer(&copies);
    model.clone();
    set_launch_observer(before);
    return copies.count;
  };
  const int alone = copies(Dense(3, 3));
  Sequential outer;
  outer.add<Sequential>().add<Sequential>().add<Dense>(3, 3);
  CHECK(copies(outer) == alone);
}

TEST_CASE("A layer of a Sequential that is not there is refused") {
  Sequential model;
  model.add<ReLU>();
  CHECK(error_of([&] { model[1]; }) == "Sequential: expected the number of one of its 1 layers, from 0, got 1");
  CHECK_THROWS_AS(std::as_const(model)[7], ValueError);
}
