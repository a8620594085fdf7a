// The op table: drawing operands; elementwise ops, reductions, casts.
#include "op_cases.h"

#include <algorithm>
#include <cmath>

#include "helpers.h"
#include "tandem/core/random.h"

namespace tandem::test {

using reference::Array;

Tensors make_inputs(const OpInputs& operands, Dtype dtype, uint64_t seed) {
  int64_t count = 0;
  for (const OpInput& operand : operands) count += operand.shape.numel();
  count += count % 2;  // an odd number of cells would put one on 0
  const std::vector<int32_t> cells = Stream(seed, "cells").permutation(count);
  Tensors tensors;
  size_t next = 0;
  for (const OpInput& operand : operands) {
    std::vector<double> values(operand.shape.numel());
    for (double& value : values) {
      const double u = (cells[next++] + 0.5) / static_cast<double>(count);
      value = operand.low + (operand.high - operand.low) * u;
      if (operand.kind == OpInput::Kind::index) value = std::floor(operand.high * u);
    }
    if (operand.kind == OpInput::Kind::absent) {
      tensors.emplace_back();
      continue;
    }
    const bool is_index = operand.kind == OpInput::Kind::index;
    tensors.push_back(Tensor::from(values, operand.shape).to(is_index ? Dtype::int32 : dtype).to(test_device()));
    tensors.back().set_requires_grad(operand.kind == OpInput::Kind::differentiable);
  }
  return tensors;
}

namespace {

using UnaryOp = Tensor (*)(const Tensor&);

OpCase unary(const std::string& name, UnaryOp op, double (*f)(double), double low, double high) {
  return {.name = name,
          .samples = {{{{3, 4}, low, high}}, {{{}, low, high}}, {{{2, 1, 3, 1, 2}, low, high}}, {{{0, 3}, low, high}}},
          .large = {{{130, 517}, low, high}},
          .op = [op](const Tensors& x) { return op(x[0]); },
          .reference = [f](const Arrays& x) { return reference::map(x[0], f); }};
}

OpCase binary(const std::string& name, Tensor (*op)(const Tensor&, const Tensor&), double (*f)(double, double),
              double low_b = -1) {
  auto pair = [low_b](const Shape& a, const Shape& b) -> OpInputs { return {{a}, {b, low_b, 1.5}}; };
  return {.name = name,
          .samples = {pair({3, 4}, {3, 4}), pair({3, 4}, {4}), pair({3, 4}, {3, 1}), pair({4}, {3, 4}),
                      pair({3, 1}, {1, 4}), pair({2, 3, 4}, {}), pair({}, {}), pair({1}, {5}),
                      pair({2, 1, 3, 1}, {4, 1, 2}), pair({0, 3}, {3}), pair({2, 1}, {2, 0})},
          .large = pair({67, 129, 5}, {129, 1}),
          .op = [op](const Tensors& x) { return op(x[0], x[1]); },
          .reference = [f](const Arrays& x) { return reference::map2(x[0], x[1], f); }};
}

// The operators that take a number on one side.
OpCase with_number(const std::string& name, UnaryOp op, double (*f)(double), double low = -1) {
  OpCase row = unary(name, op, f, low, 2);
  row.samples = {{{{3, 4}, low, 2}}, {{{}, low, 2}}};
  return row;
}

struct ReduceArguments {
  Shape shape;
  std::vector<int> axes;
  bool keep_dims = false;
};

using ReduceFunction = Tensor (*)(const Tensor&, const std::vector<int>&, bool);

OpCase reduction(const std::string& name, ReduceFunction op, reference::Reduction kind, const ReduceArguments& a,
                 OpInputs large = {}) {
  return {.name = name,
          .samples = {{{a.shape}}},
          .large = std::move(large),
          .op = [op, a](const Tensors& x) { return op(x[0], a.axes, a.keep_dims); },
          .reference = [kind, a](const Arrays& x) { return reference::reduce(x[0], kind, a.axes, a.keep_dims); }};
}

void add_reductions(std::vector<OpCase>& rows, const std::string& name, ReduceFunction op, reference::Reduction kind) {
  const auto row = [&](const std::string& what, const ReduceArguments& a, const OpInputs& large = {}) {
    rows.push_back(reduction(name + ", " + what, op, kind, a, large));
  };
  row("all axes", {{3, 4, 2}, {}}, {{{67, 33, 17}}});
  row("all axes kept", {{3, 4}, {}, true});
  row("a scalar", {{}, {}});
  row("first axis", {{3, 4, 2}, {0}}, {{{301, 7, 33}}});
  row("last axis", {{3, 4, 2}, {-1}}, {{{301, 7, 33}}});
  row("middle axis kept", {{3, 4, 2}, {1}, true}, {{{9, 301, 33}}});
  row("outer axes", {{3, 4, 2}, {0, 2}}, {{{67, 33, 17}}});
  row("axes in any order", {{2, 3, 2, 2}, {3, -4, 1}});
  row("an axis of 1", {{3, 1, 2}, {1}});
  row("no rows left", {{0, 3}, {1}});
}

double relu_of(double x) { return x > 0 ? x : 0; }
double sigmoid_of(double x) { return 1 / (1 + std::exp(-x)); }

}  // namespace

std::vector<OpCase> elementwise_cases() {
  std::vector<OpCase> rows = {
      unary(
          "neg", neg, [](double x) { return -x; }, -2, 2),
      unary("exp", exp, std::exp, -3, 3),
      unary("log", log, std::log, 0.3, 5),
      unary("sqrt", sqrt, std::sqrt, 0.3, 5),
      unary("abs", abs, std::fabs, -2, 2),
      unary("relu", relu, relu_of, -2, 2),
      unary("sigmoid", sigmoid, sigmoid_of, -6, 6),
      unary("tanh", tanh, std::tanh, -4, 4),
      unary(
          "affine", [](const Tensor& x) { return affine(x, -2.5, 0.75); }, [](double x) { return -2.5 * x + 0.75; }, -2,
          2),
      binary("add", add, [](double a, double b) { return a + b; }),
      binary("sub", sub, [](double a, double b) { return a - b; }),
      binary("mul", mul, [](double a, double b) { return a * b; }),
      binary(
          "div", div, [](double a, double b) { return a / b; }, 0.5),
      binary("maximum", maximum, [](double a, double b) { return std::max(a, b); }),
      binary("minimum", minimum, [](double a, double b) { return std::min(a, b); }),
      binary(
          "operator+", [](const Tensor& a, const Tensor& b) { return a + b; },
          [](double a, double b) { return a + b; }),
      binary(
          "operator-", [](const Tensor& a, const Tensor& b) { return a - b; },
          [](double a, double b) { return a - b; }),
      binary(
          "operator*", [](const Tensor& a, const Tensor& b) { return a * b; },
          [](double a, double b) { return a * b; }),
      binary(
          "operator/", [](const Tensor& a, const Tensor& b) { return a / b; }, [](double a, double b) { return a / b; },
          0.5),
      with_number(
          "operator-, of one", [](const Tensor& x) { return -x; }, [](double x) { return -x; }),
      with_number(
          "operator+, a number", [](const Tensor& x) { return 0.5 + (x + 2.0); }, [](double x) { return x + 2.5; }),
      with_number(
          "operator-, a number", [](const Tensor& x) { return 0.5 - (x - 2.0); }, [](double x) { return 2.5 - x; }),
      with_number(
          "operator*, a number", [](const Tensor& x) { return 0.5 * (x * 3.0); }, [](double x) { return 1.5 * x; }),
      with_number(
          "operator/, a number", [](const Tensor& x) { return 0.5 / (x / 3.0); }, [](double x) { return 1.5 / x; },
          0.5),
      {.name = "mul, a tensor by itself",
       .samples = {{{{3, 4}}}},
       .op = [](const Tensors& x) { return mul(x[0], x[0]); },
       .reference = [](const Arrays& x) { return reference::map(x[0], [](double v) { return v * v; }); }},
      {.name = "to, float64 and back",
       .samples = {{{{3, 4}}}},
       .large = {{{130, 517}}},
       .op = [](const Tensors& x) { return x[0].to(Dtype::float64).to(x[0].dtype()); },
       .reference = [](const Arrays& x) { return x[0]; }},
      {.name = "clone",
       .samples = {{{{3, 4}}}, {{{0}}}},
       .large = {{{130, 517}}},
       .op = [](const Tensors& x) { return x[0].clone(); },
       .reference = [](const Arrays& x) { return x[0]; }},
  };
  add_reductions(rows, "sum", sum, reference::Reduction::sum);
  add_reductions(rows, "mean", mean, reference::Reduction::mean);
  add_reductions(rows, "max", max, reference::Reduction::max);
  rows.push_back(reduction("sum, no values", sum, reference::Reduction::sum, {{0, 3}, {0}}));
  return rows;
}

const std::vector<OpCase>& op_cases() {
  static const std::vector<OpCase> all = [] {
    std::vector<OpCase> rows;
    for (auto& family : {elementwise_cases(), shape_cases(), image_cases(), batch_norm_cases(), loss_cases()}) {
      rows.insert(rows.end(), family.begin(), family.end());
    }
    return rows;
  }();
  return all;
}

}  // namespace tandem::test
