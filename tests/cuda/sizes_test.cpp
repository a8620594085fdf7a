// Ops of many sizes on a GPU against the CPU, outputs and gradients, with every output of a kernel poisoned first.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "../catch.hpp"
#include "../gradcheck.h"
#include "../helpers.h"
#include "../op_cases.h"
#include "../poison.h"
#include "steps.h"
#include "tandem/core/autograd.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Op = std::function<Tensor(const Tensors&)>;
constexpr auto kIndex = OpInput::Kind::index;

// An op of rows x[N, C], or of images x[N, H, W, C].
struct SizedOp {
  std::string name;
  std::function<OpInputs(const Shape& x)> inputs;
  Op op;
};

Tensors on(Device device, const Tensors& tensors) {
  Tensors there;
  for (const Tensor& x : tensors) there.push_back(x.detach().to(device).set_requires_grad(x.requires_grad()));
  return there;
}

int64_t channels(const Shape& x) { return x[x.rank() - 1]; }

Tensor normalised(const Tensors& t) { return batch_norm(t[0], t[1], t[2], {}, {.allow_one_value = true}); }
OpInputs normalised_inputs(const Shape& x) { return {{x, -2, 3}, {{channels(x)}, 0.5, 2}, {{channels(x)}}}; }

const std::vector<SizedOp> kRows = {
    {"add, a row",
     [](const Shape& x) -> OpInputs {
       return {{x}, {{x[1]}}};
     },
     [](const Tensors& t) { return add(t[0], t[1]); }},
    {"tanh", [](const Shape& x) -> OpInputs { return {{x}}; }, [](const Tensors& t) { return tanh(t[0]); }},
    {"sum of columns", [](const Shape& x) -> OpInputs { return {{x}}; },
     [](const Tensors& t) { return sum(t[0], {0}); }},
    {"mean of rows", [](const Shape& x) -> OpInputs { return {{x}}; },
     [](const Tensors& t) { return mean(t[0], {1}); }},
    {"max of rows", [](const Shape& x) -> OpInputs { return {{x}}; }, [](const Tensors& t) { return max(t[0], {1}); }},
    {"transpose", [](const Shape& x) -> OpInputs { return {{x}}; }, [](const Tensors& t) { return transpose(t[0]); }},
    {"slice", [](const Shape& x) -> OpInputs { return {{x}}; },
     [](const Tensors& t) { return slice(t[0], 0, t[0].dim(0) / 2, t[0].dim(0)); }},
    {"gather_rows",
     [](const Shape& x) -> OpInputs {
       return {{x}, {{7}, 0, static_cast<double>(x[0]), kIndex}};
     },
     [](const Tensors& t) { return gather_rows(t[0], t[1]); }},
    {"linear",
     [](const Shape& x) -> OpInputs {
       return {{x}, {{5, x[1]}}, {{5}}};
     },
     [](const Tensors& t) { return linear(t[0], t[1], t[2]); }},
    {"softmax",
     [](const Shape& x) -> OpInputs {
       return {{x, -3, 3}};
     },
     [](const Tensors& t) { return softmax(t[0]); }},
    {"cross_entropy",
     [](const Shape& x) -> OpInputs {
       return {{x, -3, 3}, {{x[0]}, 0, static_cast<double>(x[1]), kIndex}};
     },
     [](const Tensors& t) { return cross_entropy(t[0], t[1], {.label_smoothing = 0.1}); }},
    {"batch_norm", normalised_inputs, normalised},
    {"dropout", [](const Shape& x) -> OpInputs { return {{x}}; },
     [](const Tensors& t) {
       return dropout(t[0], 0.4, 7, zeros({}, {.dtype = Dtype::int64, .device = t[0].device()}));
     }},
};

const std::vector<SizedOp> kImages = {
    {"conv2d",
     [](const Shape& x) -> OpInputs {
       return {{x}, {{3, 2, 2, channels(x)}}, {{3}}};
     },
     [](const Tensors& t) { return conv2d(t[0], t[1], t[2], {.padding = 1}); }},
    {"max_pool2d", [](const Shape& x) -> OpInputs { return {{x}}; }, [](const Tensors& t) { return max_pool2d(t[0]); }},
    {"avg_pool2d", [](const Shape& x) -> OpInputs { return {{x}}; },
     [](const Tensors& t) { return avg_pool2d(t[0], {.kernel = 2, .stride = 1}); }},
    {"global_avg_pool", [](const Shape& x) -> OpInputs { return {{x}}; },
     [](const Tensors& t) { return global_avg_pool(t[0]); }},
    {"batch_norm", normalised_inputs, normalised},
};

double largest(const std::vector<double>& values, const std::vector<double>& subtracted = {}) {
  double most = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double off = std::fabs(values[i] - (subtracted.empty() ? 0 : subtracted[i]));
    if (!(off <= most)) most = off;  // NaN too
  }
  return most;
}

void check_against_cpu(const SizedOp& sized, const Shape& shape) {
  for (Dtype dtype : {Dtype::float32, Dtype::float64}) {
    INFO(sized.name << " of " << to_string(shape) << " " << name_of(dtype));
    const Tensors drawn = make_inputs(sized.inputs(shape), dtype);
    const auto all = [&](Device device) {
      const Tensors inputs = on(device, drawn);
      Tensors results = gradients(sized.op, inputs);
      const NoGrad no_grad;
      results.push_back(sized.op(inputs));
      return results;
    };
    const Tensors want = all(Device::cpu());
    PoisonOutputs poison;
    const Tensors got = all(kGpu);
    CHECK(poison.changed_input() == "");
    const double bound = dtype == Dtype::float32 ? 2e-5 : 1e-12;
    for (size_t i = 0; i < want.size(); ++i) {
      REQUIRE(got[i].defined() == want[i].defined());
      if (!want[i].defined()) continue;
      CHECK(got[i].shape() == want[i].shape());
      const std::vector<double> expected = values(want[i]);
      CHECK(largest(values(got[i]), expected) <= bound * std::max(1.0, largest(expected)));
    }
  }
}

}  // namespace

TEST_CASE("Rows of every size give the CPU's values and gradients", "[cuda]") {
  if (no_gpu()) return;
  for (const SizedOp& op : kRows) {
    for (int64_t n : {1, 7, 60, 128, 129, 1024}) {
      for (int64_t c : {1, 10, 129}) check_against_cpu(op, {n, c});
    }
    check_against_cpu(op, {140'000, 3});
    check_against_cpu(op, {3, 65'536});
  }
}

TEST_CASE("Images of every size give the CPU's values and gradients", "[cuda]") {
  if (no_gpu()) return;
  for (const SizedOp& op : kImages) {
    for (int64_t n : {1, 7, 60, 128, 129}) {
      for (int64_t c : {1, 5, 32}) check_against_cpu(op, {n, 5, 4, c});
    }
    check_against_cpu(op, {140'000, 2, 2, 1});
    check_against_cpu(op, {2, 2, 2, 65'536});
  }
}
