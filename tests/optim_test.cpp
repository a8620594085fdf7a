// Optimizers against their formulas written out in float64, and schedules against their closed forms.
#include <cmath>
#include <functional>
#include <limits>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"
#include "tandem/core/ops.h"
#include "tandem/core/storage.h"
#include "tandem/optim/optimizer.h"
#include "tandem/optim/schedule.h"

using namespace tandem;
using namespace tandem::test;

namespace {

const double kNan = std::nan(""), kInf = std::numeric_limits<double>::infinity();

// The gradient of step s for element i of a parameter that is now p.
double gradient(double p, int s, size_t i) { return 0.3 * p + std::sin(1.0 + s + 0.7 * static_cast<double>(i)); }

void set_gradient(Tensor p, int s) {
  std::vector<double> g = values(p);
  for (size_t i = 0; i < g.size(); ++i) g[i] = gradient(g[i], s, i);
  p.set_grad(Tensor::from(g, p.shape()).to(p.dtype()));
}

Tensor start(Dtype dtype = Dtype::float64) {
  return Tensor::from<double>({0.5, -1, 2, 0, 3, -0.25}, {2, 3}).to(dtype).clone().set_requires_grad(true);
}

// One element's way through 10 steps by the textbook; `step(p, g, s)` returns the new p, s counting from 1.
std::vector<double> by_hand(const std::function<std::function<double(double, double, int)>()>& make) {
  std::vector<double> p = values(start());
  for (size_t i = 0; i < p.size(); ++i) {
    const auto step = make();
    for (int s = 1; s <= 10; ++s) p[i] = step(p[i], gradient(p[i], s, i), s);
  }
  return p;
}

void check_ten_steps(const std::function<std::unique_ptr<Optimizer>(Tensor)>& make,
                     const std::vector<double>& expected) {
  for (const Dtype dtype : {Dtype::float64, Dtype::float32}) {
    Tensor p = start(dtype);
    const auto optimizer = make(p);
    INFO(optimizer->to_string() << " " << name_of(dtype));
    for (int s = 1; s <= 10; ++s) {
      set_gradient(p, s);
      optimizer->step();
    }
    const std::vector<double> got = values(p);
    const double tolerance = dtype == Dtype::float64 ? 1e-13 : 3e-6;
    for (size_t i = 0; i < got.size(); ++i) {
      CHECK(std::fabs(got[i] - expected[i]) <= tolerance * std::fmax(1, std::fabs(expected[i])));
    }
    CHECK(optimizer->steps() == 10);
  }
}

void check_sgd(SGDOptions o) {
  const auto textbook = [o] {
    return [o, v = 0.0](double p, double g, int s) mutable {
      g += o.weight_decay * p;
      if (o.momentum == 0) return p - o.lr * g;
      v = s == 1 ? g : o.momentum * v + (1 - o.dampening) * g;
      return p - o.lr * (o.nesterov ? g + o.momentum * v : v);
    };
  };
  check_ten_steps([&](Tensor p) { return std::make_unique<SGD>(std::vector<Parameter>{p}, o); }, by_hand(textbook));
}

template <class A, class Options>
void check_adam(Options o, bool decoupled) {
  const auto textbook = [o, decoupled] {
    return [o, decoupled, m = 0.0, v = 0.0](double p, double g, int s) mutable {
      if (decoupled)
        p -= o.lr * o.weight_decay * p;
      else
        g += o.weight_decay * p;
      m = o.beta1 * m + (1 - o.beta1) * g;
      v = o.beta2 * v + (1 - o.beta2) * g * g;
      const double m_hat = m / (1 - std::pow(o.beta1, s)), v_hat = v / (1 - std::pow(o.beta2, s));
      return p - o.lr * m_hat / (std::sqrt(v_hat) + o.eps);
    };
  };
  check_ten_steps([&](Tensor p) { return std::make_unique<A>(std::vector<Parameter>{p}, o); }, by_hand(textbook));
}

Parameter named(const char* name, Role role, double value = 1, double grad = 0.5) {
  Parameter p(name, full({2}, value, {Dtype::float64}), role);
  p.tensor.set_grad(full({2}, grad, {Dtype::float64}));
  return p;
}

double first(const Parameter& p) { return values(p.tensor)[0]; }

}  // namespace

TEST_CASE("SGD is torch.optim.SGD, with every option") {
  check_sgd({.lr = 0.1});
  check_sgd({.lr = 0.1, .weight_decay = 0.2});
  check_sgd({.lr = 0.05, .momentum = 0.9});
  check_sgd({.lr = 0.05, .momentum = 0.9, .dampening = 0.4, .weight_decay = 0.01});
  check_sgd({.lr = 0.05, .momentum = 0.9, .nesterov = true});
  check_sgd({.lr = 0, .momentum = 0.9});
}

TEST_CASE("Adam and AdamW are torch.optim's, with every option") {
  check_adam<Adam>(AdamOptions{.lr = 0.01}, false);
  check_adam<Adam>(AdamOptions{.lr = 0.01, .beta1 = 0.5, .beta2 = 0.9, .eps = 1e-2, .weight_decay = 0.1}, false);
  check_adam<AdamW>(AdamWOptions{.lr = 0.01}, true);
  check_adam<AdamW>(AdamWOptions{.lr = 0.01, .weight_decay = 0.3}, true);
}

TEST_CASE("Weight decay reaches weights alone, or all when told so") {
  for (const Decay decay : {Decay::weights, Decay::all}) {
    const Parameter w = named("w", Role::weight), b = named("b", Role::bias), n = named("n", Role::norm);
    SGD({w, b, n}, {.lr = 1, .weight_decay = 0.1, .decay = decay}).step();
    CHECK(first(w) == Approx(1 - 0.5 - 0.1));
    CHECK(first(b) == Approx(decay == Decay::all ? 0.4 : 0.5));
    CHECK(first(n) == Approx(decay == Decay::all ? 0.4 : 0.5));
  }
  const Parameter bare(named("", Role::bias).tensor);
  SGD({bare}, {.lr = 1, .weight_decay = 0.1}).step();
  CHECK(first(bare) == Approx(0.4));  // a bare tensor is a weight
}

TEST_CASE("Groups have their own lr and weight decay") {
  const Parameter a = named("a", Role::weight), b = named("b", Role::weight), c = named("c", Role::bias);
  SGD sgd(std::vector<ParameterGroup>{{{a}}, {.parameters = {b, c}, .lr_scale = 0.5, .weight_decay = 0.3}},
          {.lr = 1, .weight_decay = 0.1});
  sgd.step();
  CHECK(first(a) == Approx(1 - (0.5 + 0.1)));
  CHECK(first(b) == Approx(1 - 0.5 * (0.5 + 0.3)));
  CHECK(first(c) == Approx(1 - 0.5 * 0.5));  // Decay::weights holds in groups too
  sgd.set_lr(0);
  const double before = first(b);
  sgd.step();
  CHECK(first(b) == before);
  CHECK(sgd.lr() == 0);
}

TEST_CASE("Parameters without a gradient are skipped, and their first step comes later") {
  const Parameter a = named("a", Role::weight), b = named("b", Role::weight);
  SGD sgd({a, b}, {.lr = 1, .momentum = 0.5});
  Adam adam({a, b}, {.lr = 0.1});
  sgd.zero_grad();
  CHECK(!a.tensor.grad().defined());
  sgd.step();
  CHECK(first(a) == 1);
  Tensor(b.tensor).set_grad(full({2}, 0.25, {Dtype::float64}));
  sgd.step();
  CHECK(first(b) == 0.75);  // v = g at the parameter's own first step
  adam.step();
  CHECK(first(b) == Approx(0.65).epsilon(1e-6));  // lr, whatever the gradient, at its own first step
  CHECK(first(a) == 1);
}

TEST_CASE("A step before the backward of an older forward is noticed") {
  Tensor w = start(), x = ones({4, 3}, {Dtype::float64}).set_requires_grad(true);
  const Tensor y = linear(x, w);
  set_gradient(w, 1);
  SGD sgd({w}, {.lr = 0.1});
  sgd.step();
  CHECK_THROWS_AS(sum(y).backward(), ValueError);
}

TEST_CASE("After its first step an optimizer allocates nothing") {
  Tensor p = start(Dtype::float32);
  SGD sgd({p}, {.lr = 0.1, .momentum = 0.9});
  Adam adam({p}, {.lr = 0.1});
  set_gradient(p, 1);
  sgd.step();
  adam.step();
  const MemoryStats before = memory_stats();
  for (int s = 0; s < 5; ++s) {
    sgd.set_lr(0.1 / (s + 1));
    sgd.step();
    adam.step();
  }
  CHECK(memory_stats().bytes_in_use == before.bytes_in_use);
  CHECK(memory_stats().bytes_peak == before.bytes_peak);
}

TEST_CASE("A first step that runs out of memory has changed nothing") {
  struct NoMemory : LaunchObserver {  // the state of an optimizer is filled with zeros
    void call(const char* kernel) override {
      if (std::string(kernel) == "Fill" && fills-- == 0) throw OutOfMemory("none left");
    }
    void operand(const View&, Use) override {}
    int fills = 3;  // of four
  };
  Tensor a = start(), b = start();
  const std::vector<double> before = values(a);
  set_gradient(a, 1);
  set_gradient(b, 1);
  Adam adam({a, b}, {.lr = 0.1});
  NoMemory no_memory;
  LaunchObserver* observer = set_launch_observer(&no_memory);
  CHECK_THROWS_AS(adam.step(), OutOfMemory);
  set_launch_observer(observer);
  CHECK(values(a) == before);
  CHECK(adam.steps() == 0);
  adam.step();
  CHECK(values(a) == values(b));
  CHECK(values(a)[0] == Approx(before[0] - 0.1).epsilon(1e-6));  // lr: it counts as the first step
  CHECK(adam.steps() == 1);
}

TEST_CASE("A parameter that changed its dtype since forward gets no gradient, so a step moves nothing") {
  Tensor a = start(), b = start();
  const std::vector<double> before = values(a);
  SGD sgd({Parameter("a", a, Role::weight), Parameter("b", b, Role::weight)}, {.lr = 0.1});
  const Tensor loss = sum(a * 2) + sum(b * 2);
  b.set_data(b.detach().to(Dtype::float32));
  CHECK_THROWS_AS(loss.backward(), ValueError);
  sgd.step();
  CHECK(values(a) == before);
}

TEST_CASE("An optimizer follows its parameter to another dtype") {
  Tensor p = start(Dtype::float32), same = start(Dtype::float64);
  SGD narrow({p}, {.lr = 0.1, .momentum = 0.9}), wide({same}, {.lr = 0.1, .momentum = 0.9});
  for (int s = 1; s <= 3; ++s) {
    if (s == 2) p.set_data(p.detach().to(Dtype::float64));
    set_gradient(p, s);
    set_gradient(same, s);
    narrow.step();
    wide.step();
  }
  for (size_t i = 0; i < 6; ++i) CHECK(values(p)[i] == Approx(values(same)[i]).epsilon(1e-5).margin(1e-6));
}

TEST_CASE("Optimizers refuse settings and parameters that make no sense, with the value") {
  const Parameter a = named("a", Role::weight);
  const auto sgd = [&](SGDOptions o) { return error_of([&] { SGD({a}, o); }); };
  CHECK(sgd({.lr = -0.1}) == "SGD: expected a finite lr >= 0, got -0.1");
  CHECK(sgd({.lr = kNan}) == "SGD: expected a finite lr >= 0, got nan");
  CHECK(sgd({.momentum = -1}) == "SGD: expected a finite momentum >= 0, got -1");
  CHECK(sgd({.dampening = kInf}) == "SGD: expected a finite dampening, got inf");
  CHECK(sgd({.weight_decay = -1e-4}) == "SGD: expected a finite weight_decay >= 0, got -0.0001");
  CHECK(sgd({.nesterov = true}) == "SGD: nesterov needs momentum > 0 and dampening 0, got 0 and 0");
  CHECK(sgd({.momentum = 0.9, .dampening = 0.1, .nesterov = true}) ==
        "SGD: nesterov needs momentum > 0 and dampening 0, got 0.9 and 0.1");
  CHECK(error_of([&] { Adam({a}, {.beta1 = 1}); }) == "Adam: expected beta1 and beta2 in [0, 1), got 1 and 0.999");
  CHECK(error_of([&] { AdamW({a}, {.eps = -1}); }) == "AdamW: expected a finite eps >= 0, got -1");
  CHECK(error_of([&] { AdamW({a}, {.lr = kInf}); }) == "AdamW: expected a finite lr >= 0, got inf");
  CHECK(error_of([] { SGD(std::vector<Parameter>{}); }) == "SGD: expected at least one parameter, got none");
  CHECK(error_of([&] { SGD({a, a}); }) == "SGD: parameter \"a\" [2] is given twice");
  CHECK(error_of([] { SGD({Parameter(Tensor())}); }) == "SGD: a parameter is an empty Tensor");
  CHECK(error_of([] { SGD({Parameter("n", ones({2}, {Dtype::int32}), Role::weight)}); }) ==
        "SGD: expected leaves of float32 or float64, but \"n\" is int32");
  const Tensor computed = start() * 2;
  CHECK(error_of([&] { SGD({Parameter("y", computed, Role::weight)}); }) ==
        "SGD: expected leaves of float32 or float64, but \"y\" is computed by the graph");
  CHECK(error_of([&] { SGD(std::vector<ParameterGroup>{{.parameters = {a}, .lr_scale = -1}}); }) ==
        "SGD: expected a finite lr_scale >= 0, got -1");
  CHECK(error_of([&] { SGD(std::vector<ParameterGroup>{{.parameters = {a}, .weight_decay = kNan}}); }) ==
        "SGD: expected a finite weight_decay of a group >= 0, got nan");
  SGD fine({a}, {.lr = 0.1});
  CHECK(error_of([&] { fine.set_lr(-1); }) == "SGD: expected a finite lr >= 0, got -1");
  CHECK(fine.lr() == 0.1);
}

TEST_CASE("Optimizers describe themselves") {
  const Parameter a = named("a", Role::weight);
  CHECK(SGD({a}).to_string() == "SGD(lr 0.01)");
  CHECK(SGD({a}, {.lr = 0.1, .momentum = 0.9, .weight_decay = 1e-4}).to_string() ==
        "SGD(lr 0.1, momentum 0.9, weight decay 0.0001 on weights)");
  CHECK(SGD({a}, {.momentum = 0.9, .nesterov = true}).to_string() == "SGD(lr 0.01, Nesterov momentum 0.9)");
  CHECK(SGD({a}, {.momentum = 0.9, .dampening = 0.5}).to_string() == "SGD(lr 0.01, momentum 0.9, dampening 0.5)");
  CHECK(Adam({a}).to_string() == "Adam(lr 0.001)");
  CHECK(Adam({a}, {.beta1 = 0.8, .eps = 1e-7}).to_string() == "Adam(lr 0.001, betas 0.8 and 0.999, eps 1e-07)");
  CHECK(AdamW({a}, {.decay = Decay::all}).to_string() == "AdamW(lr 0.001, weight decay 0.01 on all parameters)");
}

TEST_CASE("Clipping scales all gradients to the joint norm, and leaves small ones alone") {
  const Parameter a = named("a", Role::weight, 1, 3), none("none", ones({3}), Role::weight);
  Parameter b("b", ones({2}), Role::bias);  // float32 beside float64
  b.tensor.set_grad(full({2}, 4));
  const double norm = std::sqrt(2 * 9 + 2 * 16.0);
  CHECK(clip_grad_norm({a, none, b}, 2).item() == Approx(norm).epsilon(1e-12));
  const double factor = 2 / (norm + 1e-6);
  CHECK(values(a.tensor.grad())[0] == Approx(3 * factor).epsilon(1e-12));
  CHECK(values(b.tensor.grad())[1] == Approx(4 * factor).epsilon(1e-6));
  const auto before = bytes(a.tensor.grad());
  CHECK(clip_grad_norm({a, none, b}, 100).item() == Approx(2).epsilon(1e-5));
  CHECK(bytes(a.tensor.grad()) == before);
  CHECK(clip_grad_norm({none}, 1).item() == 0);
  CHECK(clip_grad_norm({a}, kInf).item() > 0);
  CHECK(bytes(a.tensor.grad()) == before);
}

TEST_CASE("Clipping reports a norm that is not finite, and refuses a limit that is no limit") {
  CHECK(clip_grad_norm({named("a", Role::weight, 1, kInf)}, 1).item() == kInf);
  CHECK(std::isnan(clip_grad_norm({named("a", Role::weight, 1, kNan)}, 1).item()));
  const Parameter a = named("a", Role::weight);
  CHECK(error_of([&] { clip_grad_norm({a}, 0); }) == "clip_grad_norm: expected max_norm > 0, got 0");
  CHECK(error_of([&] { clip_grad_norm({a}, kNan); }) == "clip_grad_norm: expected max_norm > 0, got nan");
}

// ---- schedules ----------------------------------------------------------------------------------------------

TEST_CASE("Constant and step schedules") {
  const Schedule constant{.total_steps = 3};
  for (int64_t step = 0; step < 3; ++step) CHECK(constant.factor(step) == 1);
  const Schedule steps{.kind = Schedule::Kind::step, .total_steps = 7, .step_size = 3, .gamma = 0.5};
  const double expected[] = {1, 1, 1, 0.5, 0.5, 0.5, 0.25};
  for (int64_t step = 0; step < 7; ++step) CHECK(steps.factor(step) == expected[step]);
}

TEST_CASE("The cosine schedule falls from 1 to just above 0") {
  const Schedule cosine{.kind = Schedule::Kind::cosine, .total_steps = 4};
  // (1 + cos(pi t / 4)) / 2 for t = 0 .. 3
  const double expected[] = {1, (1 + std::sqrt(0.5)) / 2, 0.5, (1 - std::sqrt(0.5)) / 2};
  for (int64_t step = 0; step < 4; ++step) CHECK(cosine.factor(step) == Approx(expected[step]).epsilon(1e-14));
  CHECK(Schedule{.kind = Schedule::Kind::cosine, .total_steps = 1000}.factor(999) < 1e-5);
}

TEST_CASE("Warm-up rises linearly and the schedule runs over the rest") {
  const Schedule s{.kind = Schedule::Kind::cosine, .total_steps = 8, .warmup_steps = 4};
  const double expected[] = {0.25, 0.5, 0.75, 1, 1, (1 + std::sqrt(0.5)) / 2, 0.5, (1 - std::sqrt(0.5)) / 2};
  for (int64_t step = 0; step < 8; ++step) CHECK(s.factor(step) == Approx(expected[step]).epsilon(1e-14));
  const Schedule all{.total_steps = 4, .warmup_steps = 4};
  CHECK(all.factor(3) == 1);
}

TEST_CASE("The one-cycle schedule gives the numbers of torch.optim.lr_scheduler.OneCycleLR") {
  // OneCycleLR(max_lr=1, total_steps=10, pct_start=0.3): up over steps 0 .. 2 = 0.3 * 10 - 1, down over 2 .. 9, each
  // lr = end + (start - end) / 2 (1 + cos(pi pct)), from 1/25 to 1 and from 1 to 1/25e4.
  const Schedule s{.kind = Schedule::Kind::one_cycle, .total_steps = 10};
  const double low = 1.0 / 25, last = 1.0 / 25e4;
  const auto down = [&](double pct) { return last + (1 - last) / 2 * (1 + std::cos(M_PI * pct)); };
  const double expected[] = {
      low,           (1 + low) / 2, 1,   down(1.0 / 7), down(2.0 / 7), down(3.0 / 7), down(4.0 / 7),
      down(5.0 / 7), down(6.0 / 7), last};
  for (int64_t step = 0; step < 10; ++step) CHECK(s.factor(step) == Approx(expected[step]).epsilon(1e-12));
  // With 15 steps the peak falls between steps 3 and 4: 0.3 * 15 - 1 = 3.5.
  const Schedule between{.kind = Schedule::Kind::one_cycle, .total_steps = 15};
  CHECK(between.factor(3) == Approx(1 + (low - 1) / 2 * (1 + std::cos(M_PI * 3 / 3.5))).epsilon(1e-12));
  CHECK(between.factor(4) == Approx(down(0.5 / 10.5)).epsilon(1e-12));
  for (const int64_t total : {1, 2, 3}) {  // too short for a rise
    const Schedule tiny{.kind = Schedule::Kind::one_cycle, .total_steps = total};
    for (int64_t step = 0; step < total; ++step) {
      CHECK(tiny.factor(step) >= 0);
      CHECK(tiny.factor(step) <= 1);
    }
  }
  CHECK(Schedule{.kind = Schedule::Kind::one_cycle, .total_steps = 5, .peak_fraction = 1}.factor(4) == 1);
}

TEST_CASE("Schedules refuse settings that make no sense, with the value") {
  const auto refused = [](Schedule s, int64_t step) { return error_of([&] { s.factor(step); }); };
  const auto cycle = Schedule::Kind::one_cycle;
  CHECK(refused({.total_steps = 0}, 0) == "schedule: expected total_steps >= 1, got 0");
  CHECK(refused({.total_steps = 5}, 5) == "schedule: expected a step in [0, 5), got 5");
  CHECK(refused({.total_steps = 5}, -1) == "schedule: expected a step in [0, 5), got -1");
  CHECK(refused({.total_steps = 5, .warmup_steps = 6}, 0) == "schedule: expected warmup_steps in [0, 5], got 6");
  CHECK(refused({.kind = Schedule::Kind::step, .total_steps = 5, .step_size = 0}, 0) ==
        "schedule: expected step_size >= 1 and a finite gamma >= 0, got 0 and 0.1");
  CHECK(refused({.kind = Schedule::Kind::step, .total_steps = 5, .gamma = kNan}, 0) ==
        "schedule: expected step_size >= 1 and a finite gamma >= 0, got 1 and nan");
  CHECK(refused({.kind = cycle, .total_steps = 5, .warmup_steps = 2}, 0) ==
        "schedule: expected no warm-up for one-cycle, which has its own, got 2 steps");
  CHECK(refused({.kind = cycle, .total_steps = 5, .peak_fraction = 1.5}, 0) ==
        "schedule: expected one-cycle's peak_fraction, start_factor and end_factor in [0, 1], got 1.5");
}

TEST_CASE("Schedules have names") {
  for (const char* name : {"constant", "step", "cosine", "one-cycle"}) CHECK(to_string(parse_schedule(name)) == name);
  CHECK(error_of([] { parse_schedule("cosin"); }) ==
        "schedule: unknown name \"cosin\" (did you mean \"cosine\"?); there are constant, step, cosine, one-cycle");
}
