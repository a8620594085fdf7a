// What a compiled step must notice: each of these once gave wrong results, or would.
#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/compile.h"
#include "tandem/core/ops.h"
#include "tandem/core/threads.h"
#include "tandem/optim/optimizer.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Tensors = std::vector<Tensor>;
using Function = CompiledStep::Function;

Tensor weight(const Shape& shape, uint64_t seed) { return random(shape, seed).set_requires_grad(true); }

// f eagerly and f compiled, on states of their own that `make` makes: outputs and the state's gradient after each step.
void check_alike(const std::function<Function(Tensors& state)>& make, const std::function<Tensors()>& state,
                 const std::vector<Tensors>& batches, CompileOptions options = {}) {
  Tensors eager_state = state(), compiled_state = state();
  const Function eager = make(eager_state);
  CompiledStep compiled(make(compiled_state), options);
  for (const Tensors& in : batches) {
    const Tensors a = eager(in), b = compiled(in);
    for (size_t i = 0; i < a.size(); ++i) CHECK((bytes(a[i]) == bytes(b[i])));
    for (size_t i = 0; i < eager_state.size(); ++i) {
      CHECK((bytes(eager_state[i]) == bytes(compiled_state[i])));
      const Tensor x = eager_state[i].grad(), y = compiled_state[i].grad();
      REQUIRE(x.defined() == y.defined());
      if (x.defined()) CHECK((bytes(x) == bytes(y)));
    }
  }
  CHECK(compiled.why_eager() == "");
}

std::vector<Tensors> batches(const Shape& shape, int n = 4) {
  std::vector<Tensors> all;
  for (int i = 0; i < n; ++i) all.push_back({random(shape, static_cast<uint64_t>(i) + 1)});
  return all;
}

}  // namespace

TEST_CASE("Nothing is fused through a reshape, or over a change in place", "[compile]") {
  check_alike(
      [](Tensors& s) -> Function {
        return [&s](const Tensors& in) -> Tensors {
          s[0].zero_grad();
          const Tensor loss = sum(conv2d(relu(in[0]).reshape({4, 4, 9, 3}), s[0]));
          loss.backward();
          return {loss};
        };
      },
      [] {
        return Tensors{weight({2, 3, 3, 3}, 9)};
      },
      batches({4, 6, 6, 3}));
  check_alike(
      [](Tensors& s) -> Function {
        return [&s](const Tensors& in) -> Tensors {
          s[0].zero_grad();
          const Tensor loss = sum(conv2d(relu(s[1]), s[0]));
          s[1].copy_from(in[0]);
          loss.backward();
          return {loss};
        };
      },
      [] {
        return Tensors{weight({2, 3, 3, 3}, 9), random({4, 6, 6, 3}, 5)};
      },
      batches({4, 6, 6, 3}));
  check_alike(
      [](Tensors& s) -> Function {
        return [&s](const Tensors& in) -> Tensors {
          const Tensor h = batch_norm(in[0], s[0], {}, {});
          s[0].fill(3);
          const Tensor y = relu(h);
          s[0].fill(1);
          return {sum(y)};
        };
      },
      [] { return Tensors{ones({3})}; }, batches({4, 6, 6, 3}));
}

TEST_CASE("A chunk does not change what the next one reads whole", "[compile]") {
  Tensor w = random({4, 3, 3, 3}, 1);
  const Tensor start = w.clone(), x = random({4, 9, 9, 3}, 2), next = random({4, 3, 3, 3}, 3);
  const Function f = [&](const Tensors& in) -> Tensors {
    const Tensor y = conv2d(in[0], w, {}, {.dilation = 2});
    w.copy_from(in[1]);
    return {y};
  };
  const Tensor eager = f({x, next})[0];
  w.copy_from(start);
  CompiledStep step(f);
  CHECK((bytes(step({x, next})[0]) == bytes(eager)));
}

TEST_CASE("A compiled step within one that is recorded is part of it", "[compile]") {
  Tensor w = weight({3, 3}, 1);
  CompiledStep inner([&](const Tensors& in) -> Tensors { return {matmul(in[0], w)}; });
  CompiledStep outer([&](const Tensors& in) -> Tensors { return {sum(inner({in[0] * 2})[0])}; });
  for (uint64_t i = 0; i < 4; ++i) {
    const Tensor x = random({5, 3}, i);
    CHECK(outer({x})[0].item() == sum(matmul(x * 2, w)).item());
  }
  CHECK(outer.why_eager() == "");
}

TEST_CASE("A step that sets the learning rate runs eagerly, with that rate for every parameter", "[compile]") {
  const Warnings warnings;
  Tensor a = ones({1}).set_requires_grad(true), b = ones({1}).set_requires_grad(true);
  SGD sgd({{"a", a, Role::weight}, {"b", b, Role::weight}}, {.lr = 1});
  CompiledStep step([&](const Tensors& in) -> Tensors {
    sgd.zero_grad();
    sgd.set_lr(0.5);
    sum((a + b) * in[0]).backward();
    sgd.step();
    return {};
  });
  for (int i = 0; i < 3; ++i) step({ones({1})});
  CHECK(a.item() == -0.5);
  CHECK(b.item() == -0.5);
  CHECK(step.why_eager().find("learning rate") != std::string::npos);
}

TEST_CASE("Checking against the eager step leaves gradients and batches as they are", "[compile]") {
  const auto accumulate = [](Tensors& s) -> Function {
    return [&s](const Tensors& in) -> Tensors {
      const Tensor loss = sum(matmul(in[0], s[0]));
      loss.backward();
      return {loss};
    };
  };
  check_alike(accumulate, [] { return Tensors{weight({3, 2}, 1)}; }, batches({4, 3}, 6), {.check_every = 1});
  Tensor w = weight({3, 10}, 1);
  CompiledStep step(
      [&](const Tensors& in) -> Tensors {
        w.zero_grad();
        const Tensor loss = cross_entropy(matmul(in[0], w), in[1]);
        loss.backward();
        return {loss};
      },
      {.check_every = 2});
  Tensors kept;  // so that no two batches have one address
  for (int i = 0; i < 6; ++i) {
    kept.push_back(full({4}, i, {Dtype::int32}));
    step({random({4, 3}, static_cast<uint64_t>(i)), kept.back()});
    if (i == 0) kept.clear();
  }
  CHECK(step.why_eager() == "");
}

TEST_CASE("Inputs may be one tensor twice, an output of the step before, but not require gradients", "[compile]") {
  const Tensor a = random({3}, 1), b = random({3}, 2);
  CompiledStep difference([](const Tensors& in) -> Tensors { return {in[0] - in[1] * 2}; });
  for (int i = 0; i < 3; ++i) {
    CHECK((bytes(difference({a, a})[0]) == bytes(a - a * 2)));
    CHECK((bytes(difference({a, b})[0]) == bytes(a - b * 2)));
  }
  CHECK(difference.why_eager() == "");
  Tensor w = weight({3, 3}, 1), v = w.clone().detach();
  v.set_requires_grad(true);
  const auto recurrent = [](Tensor& own) -> Function {
    return [&own](const Tensors& in) -> Tensors {
      own.zero_grad();
      const Tensor h = tanh(matmul(in[1], own) + in[0]);
      sum(h).backward();
      return {h};
    };
  };
  const Function eager = recurrent(w);
  CompiledStep compiled(recurrent(v));
  Tensor h = random({4, 3}, 5), g = h;
  for (uint64_t i = 0; i < 5; ++i) {
    const Tensor x = random({4, 3}, 10 + i);
    h = eager({x, h})[0].detach();
    g = compiled({x, g})[0];
    CHECK((bytes(h) == bytes(g)));
    CHECK((bytes(w.grad()) == bytes(v.grad())));
  }
  const Warnings warnings;
  CompiledStep needs([](const Tensors& in) -> Tensors {
    const Tensor loss = sum(in[0] * in[0]);
    loss.backward();
    return {loss};
  });
  for (uint64_t i = 0; i < 3; ++i) {
    Tensor x = weight({3}, i);
    needs({x});
    CHECK((bytes(x.grad()) == bytes(x.detach() * 2)));
  }
  CHECK(needs.why_eager() == "compile: the step takes an input that requires a gradient");
}

TEST_CASE("A refusal holds even where the step catches it", "[compile]") {
  const Warnings warnings;
  CompiledStep step([](const Tensors& in) -> Tensors {
    double v = -1;
    try {
      v = in[0].item();
    } catch (const Error&) {
    }
    return {in[0] * v};
  });
  CHECK(step({full({1}, 3)})[0].item() == 9);
  CHECK(step.why_eager() != "");
}

TEST_CASE("What a replay overwrites is no longer good for an earlier graph", "[compile]") {
  Tensor w = ones({1}).set_requires_grad(true);
  CompiledStep step([](const Tensors& in) -> Tensors { return {in[0] * 2}; });
  Tensor o = step({ones({1})})[0];
  const Tensor y = sum(o * w);
  step({full({1}, 5)});
  CHECK(error_of([&] { y.backward(); }).find("changed in place") != std::string::npos);
  o.set_requires_grad(true);
  CHECK_FALSE(step({ones({1})})[0].requires_grad());
}

TEST_CASE("Gradients that are set from outside are used by a step without backward", "[compile]") {
  Tensor w = ones({2}).set_requires_grad(true);
  SGD sgd({{"w", w, Role::weight}}, {.lr = 1});
  CompiledStep step([&](const Tensors&) -> Tensors {
    sgd.step();
    return {};
  });
  for (int i = 1; i <= 4; ++i) {
    w.set_grad(full({2}, i));
    step({});
  }
  CHECK(w.to_vector<float>()[0] == 1 - (1 + 2 + 3 + 4));
  CHECK(step.why_eager() == "");
}
