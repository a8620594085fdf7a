// The tape: what backward computes, what it refuses, what is left when something throws.
#include "tandem/core/autograd.h"

#include <memory>
#include <string>
#include <thread>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"
#include "tandem/core/ops.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Values = std::vector<double>;

Tensor leaf(const Values& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}).set_requires_grad(true);
}

Tensor chain(const Tensor& start, int length) {
  Tensor x = start;
  for (int i = 0; i < length; ++i) x = x + 1.0;
  return x;
}

// y = 2 x, as a user would write it: an op of their own.
Tensor twice(const Tensor& x, bool* ran = nullptr) {
  return record("twice", (x.detach() * 2.0), {x}, [ran](const Tensor& dy) -> Grads {
    if (ran) *ran = true;
    return {dy * 2.0};
  });
}

}  // namespace

TEST_CASE("A chain of a million nodes runs backward and is freed", "[autograd]") {
  Tensor x = leaf({1, 2});
  sum(chain(x, 1000000)).backward();
  CHECK(x.grad().to_vector<double>() == Values{1, 1});
}

TEST_CASE("A chain of a million nodes is freed without backward", "[autograd]") {
  Tensor x = leaf({1, 2});
  const uint64_t before = memory_stats().bytes_in_use;
  { const Tensor y = chain(x, 1000000); }
  CHECK(memory_stats().bytes_in_use == before);
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("A million-node chain of a user's op that holds its undetached input is freed", "[autograd]") {
  Tensor y = leaf({1});
  for (int i = 0; i < 1000000; ++i) {
    y = record("keep", y.detach(), {y}, [kept = y](const Tensor& dy) -> Grads { return {dy + 0.0 * kept.detach()}; });
  }
  y = {};

  const Tensor w = leaf({1});  // held by the vjp alone, an input of no node
  y = leaf({1});
  for (int i = 0; i < 1000000; ++i) {
    y = record("keep", y.detach(), {w}, [kept = y](const Tensor& dy) -> Grads { return {dy}; });
  }
  y = {};
  SUCCEED("the stack did not overflow");
}

TEST_CASE("Gradients of a diamond add up, each node visited once", "[autograd]") {
  Tensor x = leaf({3});
  Tensor y = x * x;                // 9
  const Tensor z = y * y + y * x;  // x^4 + x^3
  z.backward();
  CHECK(x.grad().item() == 4 * 27 + 3 * 9);

  // 40 diamonds on top of one another: 2^40 paths, 40 visits.
  Tensor w = leaf({1});
  Tensor top = w;
  for (int i = 0; i < 40; ++i) top = top + top;
  top.backward();
  CHECK(w.grad().item() == 0x1p40);
}

TEST_CASE("A leaf used twice gets both gradients", "[autograd]") {
  Tensor x = leaf({2, 5}), y = leaf({7, 11});
  sum(x * y + x * 3.0).backward();
  CHECK(x.grad().to_vector<double>() == Values{10, 14});
  CHECK(y.grad().to_vector<double>() == Values{2, 5});
}

TEST_CASE("Gradients accumulate over backward calls until zero_grad", "[autograd]") {
  Tensor x = leaf({2});
  for (int i = 1; i <= 3; ++i) {
    (x * 5.0).backward();
    CHECK(x.grad().item() == 5.0 * i);
  }
  x.zero_grad();
  CHECK_FALSE(x.grad().defined());
  (x * 5.0).backward();
  CHECK(x.grad().item() == 5);
}

TEST_CASE("Gradients of different leaves never share elements", "[autograd]") {
  Tensor a = leaf({1, 2}), b = leaf({3, 4});
  const Tensor seed = Tensor::from(Values{1, 1}, {2});
  (a + b).backward(seed);
  Tensor grad = a.grad();
  grad.fill(100);
  CHECK(b.grad().to_vector<double>() == Values{1, 1});
  CHECK(seed.to_vector<double>() == Values{1, 1});

  // Through views, and for a leaf that is its own result.
  Tensor c = leaf({1, 2});
  c.reshape({2, 1}).backward(seed.reshape({2, 1}));
  c.backward(seed);
  c.grad().fill(100);
  CHECK(seed.to_vector<double>() == Values{1, 1});
}

TEST_CASE("Accumulating changes no gradient tensor that somebody keeps", "[autograd]") {
  Tensor x = leaf({1});
  (x * 2.0).backward();
  const Tensor kept = x.grad();
  (x * 3.0).backward();
  CHECK(kept.item() == 2);
  CHECK(x.grad().item() == 5);
}

TEST_CASE("A second backward over a freed graph is refused", "[autograd]") {
  Tensor x = leaf({2});
  const Tensor y = x * x;
  y.backward();
  CHECK(error_of([&] { y.backward(); }) ==
        "backward of \"mul\": an earlier backward freed this graph; run forward again, or keep it with "
        "backward({}, /*retain_graph=*/true)");
  CHECK(x.grad().item() == 4);

  // Also where only a part was freed: nothing reaches any leaf then.
  Tensor a = leaf({2});
  const Tensor shared = a * a, other = shared + a;
  shared.backward();
  CHECK_THROWS_AS(other.backward(), ValueError);
  CHECK(a.grad().item() == 4);
}

TEST_CASE("retain_graph allows another backward", "[autograd]") {
  Tensor x = leaf({2});
  const Tensor y = x * x;
  y.backward({}, true);
  y.backward({}, true);
  y.backward();
  CHECK(x.grad().item() == 12);
}

TEST_CASE("Changing a saved tensor in place is refused at backward", "[autograd]") {
  Tensor x = leaf({2, 3}), w = leaf({4, 5});
  const Tensor y = sum(x * w);
  w.copy_from(Tensor::from(Values{0, 0}, {2}));
  CHECK(error_of([&] { y.backward(); }) ==
        "backward of \"mul\": it needs the value of a tensor [2] that was changed in place since (version 1, saved at "
        "0); "
        "change a clone() instead");
  CHECK_FALSE(x.grad().defined());

  const auto refused_after = [](auto change) {
    Tensor a = leaf({2}), b = leaf({3});
    const Tensor z = a * b;
    change(a);
    CHECK_THROWS_AS(z.backward(), ValueError);
  };
  refused_after([](Tensor& a) { a.fill(1); });
  refused_after([](Tensor& a) { a.mutable_data<double>()[0] = 1; });
  refused_after([](Tensor& a) { a.detach().fill(1); });
  refused_after([](Tensor& a) { a.reshape({1, 1}).detach().fill(1); });
  refused_after([](Tensor& a) { a.bump_version(); });
}

TEST_CASE("Changing a tensor that no vjp needs is allowed", "[autograd]") {
  Tensor x = leaf({2}), y = leaf({3});
  const Tensor z = x + y;
  x.fill(7);
  z.backward();
  CHECK(x.grad().item() == 1);
}

TEST_CASE("Values of a computed tensor cannot be changed in place", "[autograd]") {
  Tensor x = leaf({2});
  Tensor y = x * 2.0;
  CHECK(error_of([&] { y.fill(1); }) == "fill: this tensor is computed by the graph; detach() it first");
  CHECK(error_of([&] { y.copy_from(x); }) == "copy_from: this tensor is computed by the graph; detach() it first");
  CHECK(error_of([&] { y.set_data(x); }) == "set_data: this tensor is computed by the graph; detach() it first");
  CHECK(error_of([&] { y.set_requires_grad(false); }) ==
        "set_requires_grad: expected a leaf, got a computed tensor; detach() it first");
}

TEST_CASE("backward refuses what has no gradient", "[autograd]") {
  CHECK(error_of([] { full({}, 1).backward(); }) ==
        "backward: this tensor does not depend on any tensor with requires_grad");
  Tensor x = leaf({1, 2});
  CHECK(error_of([&] { (x * 2.0).backward(); }) ==
        "backward: expected a single element or a gradient, got [2] without one");
  CHECK(error_of([&] { (x * 2.0).backward(ones({3}, {Dtype::float64})); }) ==
        "backward: expected a gradient [2] float64, got [3] float64");
  CHECK(error_of([&] { (x * 2.0).backward(ones({2})); }) ==
        "backward: expected a gradient [2] float64, got [2] float32");
  CHECK(error_of([] { zeros({2}, {Dtype::int32}).set_requires_grad(true); }) ==
        "set_requires_grad: expected float32 or float64, got int32");
  CHECK_FALSE(x.grad().defined());
}

TEST_CASE("NoGrad stops recording in its thread alone, and nests", "[autograd]") {
  Tensor x = leaf({2});
  {
    const NoGrad outer;
    CHECK_FALSE(grad_enabled());
    { const NoGrad inner; }
    CHECK_FALSE(grad_enabled());
    CHECK_FALSE((x * 2.0).requires_grad());
    std::thread([&] {
      CHECK(grad_enabled());
      CHECK((x * 2.0).requires_grad());
    }).join();
  }
  CHECK(grad_enabled());
  CHECK((x * 2.0).requires_grad());
}

TEST_CASE("detach shares elements but not the graph", "[autograd]") {
  Tensor x = leaf({2});
  const Tensor y = x * 3.0;
  const Tensor d = y.detach();
  CHECK_FALSE(d.requires_grad());
  CHECK(d.data<double>() == y.data<double>());
  (y * d).backward();  // d counts as a constant
  CHECK(x.grad().item() == 3 * 6);
}

TEST_CASE("Only inputs that need a gradient get one", "[autograd]") {
  Tensor x = leaf({2}), constant = Tensor::from(Values{5}, {1});
  (x * constant).backward();
  CHECK(x.grad().item() == 5);
  CHECK_FALSE(constant.grad().defined());
}

TEST_CASE("set_data and to keep handles: parameters held elsewhere follow", "[autograd]") {
  Tensor parameter = leaf({1, 2});
  const Tensor held = parameter;
  const Tensor source = Tensor::from(std::vector<float>{7, 8}, {2});
  parameter.set_data(source);
  CHECK(held.to_vector<float>() == std::vector<float>{7, 8});
  CHECK(held.data<float>() == source.data<float>());
  CHECK(held.requires_grad());
  sum(held * 2.0).backward();
  CHECK(parameter.grad().to_vector<float>() == std::vector<float>{2, 2});
}

TEST_CASE("set_data refuses another shape: an optimizer's state would no longer fit", "[autograd]") {
  Tensor x = leaf({1, 2});
  CHECK(error_of([&] { x.set_data(zeros({3})); }) ==
        "set_data: expected source[2], got source[3]; for another shape make a new tensor");
  CHECK_THROWS_AS(x.set_data(zeros({2, 1})), ShapeError);
  CHECK(x.to_vector<double>() == Values{1, 2});
}

TEST_CASE("A parameter that changed its dtype after forward gets no gradient of the old one", "[autograd]") {
  Tensor other = leaf({5}), x = Tensor::from(std::vector<float>{1, 2}, {2}).set_requires_grad(true);
  other.set_grad(ones({1}, {Dtype::float64}));
  const Tensor loss = sum(x * 2.0).to(Dtype::float64) + sum(other);
  x.set_data(x.detach().to(Dtype::float64));
  CHECK(error_of([&] { loss.backward(); }) ==
        "backward: the parameter [2] changed to float64 on cpu since forward; run forward again");
  CHECK_FALSE(x.grad().defined());
  CHECK(other.grad().item() == 1);

  // Also where one graph holds it in both dtypes.
  Tensor w = Tensor::from(std::vector<float>{1}, {1}).set_requires_grad(true);
  const Tensor before = (w * 2.0).to(Dtype::float64);
  w.set_data(w.detach().to(Dtype::float64));
  CHECK_THROWS_AS((before + w).backward(), ValueError);
  CHECK_FALSE(w.grad().defined());
}

TEST_CASE("Contributions to a leaf are added up as they come, not kept", "[autograd]") {
  const int64_t bytes = 1 << 20;
  Tensor w = zeros({bytes / 4}).set_requires_grad(true), first = ones({}).set_requires_grad(true);
  uint64_t at_last = 0;
  Tensor total = record("probe", first.detach().clone(), {first}, [&](const Tensor& dy) -> Grads {
    at_last = memory_stats().bytes_in_use;
    return {dy};
  });
  for (int i = 0; i < 50; ++i) total = total + sum(w * 2.0);
  const uint64_t before = memory_stats().bytes_in_use;
  total.backward();
  CHECK(w.grad().to_vector<float>()[7] == 100);
  CHECK(at_last < before + 4 * bytes);
}

TEST_CASE("Where memory runs out while gradients are added, every gradient stays as it was", "[autograd]") {
  struct Scarce : LaunchObserver {
    int left = 1;
    void call(const char* kernel) override {
      if (std::string(kernel) == "AddTo" && left-- == 0) throw OutOfMemory("on purpose");
    }
    void operand(const View&, Use) override {}
  } scarce;
  Tensor a = leaf({3}), b = leaf({5});
  (a * b).backward();
  const Tensor again = a * b;
  set_launch_observer(&scarce);
  CHECK_THROWS_AS(again.backward({}, true), OutOfMemory);
  set_launch_observer(nullptr);
  CHECK(a.grad().item() == 5);
  CHECK(b.grad().item() == 3);
  again.backward();
  CHECK(a.grad().item() == 10);
  CHECK(b.grad().item() == 6);
}

TEST_CASE("set_grad refuses what does not fit and keeps a copy's distance", "[autograd]") {
  CHECK(error_of([] { Tensor().set_grad({}); }) == "tensor: an empty Tensor was used; give it values first");
  Tensor x = leaf({1, 2});
  CHECK(error_of([&] { x.set_grad(ones({3}, {Dtype::float64})); }) ==
        "set_grad: expected [2] float64, got [3] float64");
  CHECK(error_of([&] { x.set_grad(ones({2})); }) == "set_grad: expected [2] float64, got [2] float32");
  x.set_grad(Tensor::from(Values{5, 6}, {2}));
  CHECK(x.grad().to_vector<double>() == Values{5, 6});
}

TEST_CASE("A user's own op joins the graph through record", "[autograd]") {
  Tensor x = leaf({3, 4});
  bool ran = false;
  sum(twice(x * x, &ran)).backward();
  CHECK(ran);
  CHECK(x.grad().to_vector<double>() == Values{12, 16});

  ran = false;
  const NoGrad no_grad;
  CHECK(twice(x, &ran).is_leaf());
  CHECK_FALSE(ran);
}

TEST_CASE("A user's vjp that returns the wrong gradients is named", "[autograd]") {
  Tensor x = leaf({3, 4});
  const auto run = [&](Grads grads) {
    return error_of(
        [&] { sum(record("mine", x.detach().clone(), {x}, [grads](const Tensor&) { return grads; })).backward(); });
  };
  CHECK(run({}) == "backward of \"mine\": expected 1 gradients, got 0");
  CHECK(run({ones({3}, {Dtype::float64})}) ==
        "backward of \"mine\": expected gradient 0 of input [2] float64, got [3] float64");
  CHECK(run({ones({2})}) == "backward of \"mine\": expected gradient 0 of input [2] float64, got [2] float32");
  CHECK_FALSE(x.grad().defined());
  CHECK(error_of([&] { record("mine", x, {x}, [](const Tensor& dy) -> Grads { return {dy}; }); }) ==
        "record \"mine\": the result must be a new tensor, not input 0");
}

TEST_CASE("An exception in a vjp leaves every gradient as it was", "[autograd]") {
  Tensor x = leaf({1}), w = leaf({2});
  (x * w).backward();
  bool fail = true;
  const auto faulty = [&](const Tensor& in) {
    return record("faulty", in.detach() * 1.0, {in}, [&fail](const Tensor& dy) -> Grads {
      if (fail) throw ValueError("faulty: on purpose");
      return {dy};
    });
  };
  const Tensor y = faulty(x * 3.0) * w + w;  // w's gradients are found before the fault
  CHECK_THROWS_AS(y.backward({}, true), ValueError);
  CHECK(x.grad().item() == 2);
  CHECK(w.grad().item() == 1);
  CHECK(grad_enabled());

  fail = false;  // the retained graph still runs, and starts from nothing
  y.backward();
  CHECK(x.grad().item() == 2 + 6);
  CHECK(w.grad().item() == 1 + 3 + 1);
}

TEST_CASE("A vjp sees gradients off and may build no graph", "[autograd]") {
  Tensor x = leaf({1});
  bool enabled = true;
  record("probe", x.detach().clone(), {x}, [&](const Tensor& dy) -> Grads {
    enabled = grad_enabled();
    return {dy};
  }).backward();
  CHECK_FALSE(enabled);
}

TEST_CASE("A graph that outlives its thread is freed elsewhere", "[autograd]") {
  Tensor x = leaf({1}), y;
  std::thread([&] { y = chain(x, 100000); }).join();
  y.backward();
  CHECK(x.grad().item() == 1);
  std::thread([moved = std::move(y)]() mutable { moved = {}; }).join();
}
