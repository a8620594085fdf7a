// What every row of the op table (op_cases.h) must pass.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <regex>
#include <set>

#include "catch.hpp"
#include "gradcheck.h"
#include "helpers.h"
#include "op_cases.h"
#include "poison.h"
#include "tandem/core/autograd.h"
#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"
#include "tandem/core/threads.h"

using namespace tandem;
using namespace tandem::test;

namespace {

const Dtype kDtypes[] = {Dtype::float32, Dtype::float64};

double rounding(Dtype dtype) {
  return dtype == Dtype::float32 ? std::numeric_limits<float>::epsilon() : std::numeric_limits<double>::epsilon();
}

Arrays as_arrays(const Tensors& tensors) {
  Arrays arrays;
  for (const Tensor& t : tensors)
    arrays.push_back(t.defined() ? reference::Array(t.shape(), values(t)) : reference::Array());
  return arrays;
}

// The first element that differs by more than `tolerance` * max(scale, |want|), in words; "" if there is none.
std::string difference(const std::vector<double>& got, const std::vector<double>& want, double tolerance,
                       double scale = 1) {
  if (got.size() != want.size()) return fmt::format("{} values instead of {}", got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    if (!(std::fabs(got[i] - want[i]) <= tolerance * std::max(scale, std::fabs(want[i]))))
      return fmt::format("element {}: {} instead of {}", i, got[i], want[i]);
  }
  return "";
}

// The samples, and the large one if there is any.
std::vector<OpInputs> all_samples(const OpCase& row) {
  std::vector<OpInputs> samples = row.samples;
  if (!row.large.empty()) samples.push_back(row.large);
  return samples;
}

// One call of an op, made ready: running it computes with kernels alone.
class Call {
 public:
  Call(const OpCase& row, const OpInputs& sample, Dtype dtype) : row_(row), inputs_(make_inputs(sample, dtype)) {
    const NoGrad no_grad;
    seed_ = probe(row.op(inputs_));
  }
  // The output and the gradients of the inputs, as bytes.
  std::vector<std::vector<uint8_t>> run() {
    for (Tensor& x : inputs_)
      if (x.defined()) x.zero_grad();
    const Tensor y = row_.op(inputs_);
    if (y.requires_grad()) y.backward(seed_);
    std::vector<std::vector<uint8_t>> all = {bytes(y)};
    for (const Tensor& x : inputs_)
      if (x.defined() && x.grad().defined()) all.push_back(bytes(x.grad()));
    return all;
  }

 private:
  const OpCase& row_;
  Tensors inputs_;
  Tensor seed_;
};

}  // namespace

TEST_CASE("Every op equals its naive reference", "[ops]") {
  for (const OpCase& row : op_cases()) {
    const std::vector<OpInputs> samples = all_samples(row);
    for (Dtype dtype : kDtypes) {
      for (const OpInputs& sample : samples) {
        const Tensors inputs = make_inputs(sample, dtype);
        INFO(row.name << " of " << to_string(inputs[0].shape()) << " " << name_of(dtype));
        const Tensor y = row.op(inputs);
        const reference::Array want = row.reference(as_arrays(inputs));
        CHECK(to_string(y.shape()) == to_string(want.shape));
        CHECK(y.dtype() == dtype);
        // Sums of many float64 values depend on the order in which they are added by that much.
        const bool long_sums = dtype == Dtype::float64 && !row.large.empty() && &sample == &samples.back();
        CHECK(difference(values(y), want.data, row.roundings * rounding(dtype) * (long_sums ? 64 : 1)) == "");
      }
    }
  }
}

TEST_CASE("Every op's gradient equals central differences", "[ops]") {
  for (const OpCase& row : op_cases()) {
    for (const OpInputs& sample : row.samples) {
      INFO(row.name << " of " << to_string(sample[0].shape));
      CHECK(gradcheck(row.op, make_inputs(sample, Dtype::float64)) == "");
    }
  }
}

TEST_CASE("Every op's float32 gradient equals its float64 gradient", "[ops]") {
  for (const OpCase& row : op_cases()) {
    for (const OpInputs& sample : all_samples(row)) {
      INFO(row.name << " of " << to_string(sample[0].shape));
      const Tensors single = make_inputs(sample, Dtype::float32);
      Tensors exact = single;
      for (Tensor& x : exact) {
        if (x.defined() && is_floating(x.dtype()))
          x = x.detach().to(Dtype::float64).set_requires_grad(x.requires_grad());
      }
      const Tensors got = gradients(row.op, single), want = gradients(row.op, exact);
      for (size_t i = 0; i < got.size(); ++i) {
        CHECK(got[i].defined() == want[i].defined());
        if (!got[i].defined()) continue;
        CHECK(got[i].dtype() == Dtype::float32);
        // A sum over the batch may cancel: its error goes with the largest of its kind.
        const std::vector<double> expected = values(want[i]);
        double largest = 1;
        for (double g : expected) largest = std::max(largest, std::fabs(g));
        CHECK(difference(values(got[i]), expected, row.roundings * rounding(Dtype::float32), largest) == "");
      }
    }
  }
}

TEST_CASE("Every op writes all of its outputs and none of its inputs", "[ops]") {
  for (const OpCase& row : op_cases()) {
    for (Dtype dtype : kDtypes) {
      for (const OpInputs& sample : all_samples(row)) {
        INFO(row.name << " of " << to_string(sample[0].shape) << " " << name_of(dtype));
        Call call(row, sample, dtype);
        const auto plain = call.run();
        PoisonOutputs poison;
        const auto poisoned = call.run();
        CHECK(poison.changed_input() == "");
        CHECK((poisoned == plain));
      }
    }
  }
}

TEST_CASE("Every op gives the same bytes on any number of threads", "[ops][threads]") {
  const int before = threads();
  const bool on_cpu = test_device().kind == Device::Kind::cpu;  // a GPU pays no heed to the host's threads
  const std::vector<int> numbers = on_cpu ? std::vector<int>{2, 3, 8} : std::vector<int>{2};
  for (const OpCase& row : op_cases()) {
    for (Dtype dtype : kDtypes) {
      for (const OpInputs& sample : all_samples(row)) {
        INFO(row.name << " of " << to_string(sample[0].shape) << " " << name_of(dtype));
        Call call(row, sample, dtype);
        set_threads(1);
        const auto alone = call.run();
        for (int n : numbers) {
          set_threads(n);
          INFO(n << " threads");
          CHECK((call.run() == alone));
        }
      }
    }
  }
  set_threads(before);
}

TEST_CASE("Every op records nothing under NoGrad", "[ops]") {
  const NoGrad no_grad;
  for (const OpCase& row : op_cases()) {
    INFO(row.name);
    const Tensor y = row.op(make_inputs(row.samples[0], Dtype::float32));
    CHECK(y.is_leaf());
  }
}

TEST_CASE("Every op refuses a floating operand of the wrong dtype", "[ops]") {
  const auto is_floating_input = [](const OpInput& o) {
    return o.kind == OpInput::Kind::differentiable || o.kind == OpInput::Kind::constant;
  };
  for (const OpCase& row : op_cases()) {
    const OpInputs& sample = row.samples[0];
    if (std::count_if(sample.begin(), sample.end(), is_floating_input) < 2) continue;
    for (size_t i = 0; i < sample.size(); ++i) {
      if (!is_floating_input(sample[i])) continue;
      Tensors inputs = make_inputs(sample, Dtype::float32);
      INFO(row.name << ", operand " << i << " of float64 among float32");
      inputs[i] = inputs[i].detach().to(Dtype::float64);
      const std::string text = error_of([&] { row.op(inputs); });
      CHECK(text.find("float32") != std::string::npos);
      CHECK(text.find("float64") != std::string::npos);
    }
  }
}

TEST_CASE("Every op's errors have their exact text", "[ops]") {
  for (const OpError& row : op_errors()) {
    for (Dtype dtype : kDtypes) {
      INFO(row.name << " " << name_of(dtype));
      std::string want = std::regex_replace(row.text, std::regex("\\{dtype\\}"), name_of(dtype));
      want = std::regex_replace(want, std::regex("\\{device\\}"), to_string(test_device()));
      CHECK(error_of([&] { row.call(dtype); }) == want);
    }
  }
}

TEST_CASE("The op table has a row and an error for every function of core/ops.h", "[ops]") {
  std::set<std::string> cases, errors;
  const auto function = [](const std::string& row) { return row.substr(0, row.find(',')); };
  for (const OpCase& row : op_cases()) cases.insert(function(row.name));
  for (const OpError& row : op_errors()) errors.insert(function(row.name));

  std::ifstream header(TANDEM_TEST_DIR "/../core/ops.h");
  const std::regex declaration(R"(^(?:inline )?Tensor (\w+|operator.)\(.*)");
  int found = 0;
  for (std::string line; std::getline(header, line);) {
    std::smatch match;
    if (!std::regex_match(line, match, declaration)) continue;
    ++found;
    INFO(match[1]);
    CHECK(cases.count(match[1]) == 1);
    // neg and the operators call add, sub, mul, div, affine.
    if (match[1].str().rfind("operator", 0) != 0) CHECK(errors.count(match[1]) == 1);
  }
  CHECK(found > 40);
}

TEST_CASE("Gradients at kinks are the documented ones", "[ops]") {
  const auto grad_of = [](Tensor (*op)(const Tensor&), std::vector<double> x) {
    Tensor leaf = Tensor::from(x, {static_cast<int64_t>(x.size())}).set_requires_grad(true);
    sum(op(leaf)).backward();
    return leaf.grad().to_vector<double>();
  };
  using Values = std::vector<double>;
  CHECK(grad_of(relu, {-1, 0, -0.0, 2}) == Values{0, 0, 0, 1});
  CHECK(grad_of(abs, {-1, 0, -0.0, 2}) == Values{-1, 0, 0, 1});
  CHECK(grad_of([](const Tensor& x) { return max(x); }, {1, 3, 3, 2}) == Values{0, 0.5, 0.5, 0});
  CHECK(grad_of([](const Tensor& x) { return maximum(x, ones({3}, {.dtype = Dtype::float64})); }, {0, 1, 2}) ==
        Values{0, 0.5, 1});
  CHECK(grad_of([](const Tensor& x) { return minimum(x, ones({3}, {.dtype = Dtype::float64})); }, {0, 1, 2}) ==
        Values{1, 0.5, 0});
}

TEST_CASE("max_pool2d gives a tie to the first of the window", "[ops]") {
  Tensor x = ones({1, 2, 2, 1}, {.dtype = Dtype::float64}).set_requires_grad(true);
  sum(max_pool2d(x)).backward();
  CHECK(x.grad().to_vector<double>() == std::vector<double>{1, 0, 0, 0});
}

TEST_CASE("NaN and infinities go through ops as IEEE 754 says", "[ops]") {
  const double nan = std::nan(""), inf = HUGE_VAL;
  const auto apply = [](Tensor (*op)(const Tensor&), double x, Dtype dtype) {
    return op(full({}, x, {.dtype = dtype})).item();
  };
  for (Dtype dtype : kDtypes) {
    INFO(name_of(dtype));
    CHECK(std::isnan(apply(relu, nan, dtype)));
    CHECK(std::isnan(apply([](const Tensor& x) { return maximum(x, zeros_like(x)); }, nan, dtype)));
    CHECK(std::isnan(apply([](const Tensor& x) { return max(x); }, nan, dtype)));
    CHECK(std::isnan(apply(
        [](const Tensor& x) {
          return max_pool2d(x.reshape({1, 1, 1, 1}), {.kernel = 1});
        },
        nan, dtype)));
    CHECK(apply(exp, -inf, dtype) == 0);
    CHECK(apply(exp, inf, dtype) == inf);
    CHECK(apply(log, 0, dtype) == -inf);
    CHECK(std::isnan(apply(log, -1, dtype)));
    CHECK(std::isnan(apply(sqrt, -1, dtype)));
    CHECK(apply(sigmoid, -1000, dtype) == 0);
    CHECK(apply(sigmoid, 1000, dtype) == 1);
    CHECK(apply(tanh, 1000, dtype) == 1);
    CHECK(apply(tanh, -inf, dtype) == -1);
  }
}

TEST_CASE("softmax and cross_entropy survive large logits", "[ops]") {
  for (Dtype dtype : kDtypes) {
    Tensor x = Tensor::from(std::vector<double>{1e4, 0, -1e4, -1e4, 1e4, 1e4}, {2, 3}).to(dtype);
    CHECK(difference(values(softmax(x)), {1, 0, 0, 0, 0.5, 0.5}, 1e-6) == "");
    const Tensor labels = Tensor::from(std::vector<int32_t>{1, 2}, {2});
    CHECK(difference(values(cross_entropy(x, labels, {.reduction = Reduction::none})), {1e4, std::log(2.0)}, 1e-6) ==
          "");
  }
}

TEST_CASE("No kernel runs for a gradient that nobody needs", "[ops]") {
  struct Calls : LaunchObserver {
    std::vector<std::string> names;
    void call(const char* kernel) override { names.push_back(kernel); }
    void operand(const View&, Use) override {}
  } calls;
  const Tensor c = ones({3, 2}), row = ones({2}), one = ones({2});
  Tensor x = ones({3, 2}).set_requires_grad(true);
  const Tensor mean = zeros({2}), var = ones({2}), batches = zeros({}, {Dtype::int64});
  const std::vector<Tensor> results = {add(x, row), sub(x, row), concat({c, x}),
                                       batch_norm(x, one, row, {mean, var, batches}, {.training = false})};
  const std::vector<std::vector<std::string>> wanted = {{}, {}, {"Slice"}, {"BnGradApply"}};
  for (size_t i = 0; i < results.size(); ++i) {
    const Tensor seed = ones(results[i].shape());
    x.zero_grad();
    calls.names.clear();
    set_launch_observer(&calls);
    results[i].backward(seed);
    set_launch_observer(nullptr);
    if (i < 2) calls.names.erase(calls.names.begin());  // the seed, copied for x
    CHECK(calls.names == wanted[i]);
  }
}

TEST_CASE("batch_norm of an empty batch gives gamma and beta zeros", "[ops]") {
  Tensor gamma = ones({2}).set_requires_grad(true), beta = zeros({2}).set_requires_grad(true);
  const RunningStats running{zeros({2}), ones({2}), zeros({}, {Dtype::int64})};
  const Tensor y = batch_norm(zeros({0, 2}), gamma, beta, running, {.training = false});
  sum(y).backward();
  CHECK(gamma.grad().to_vector<float>() == std::vector<float>{0, 0});
  CHECK(beta.grad().to_vector<float>() == std::vector<float>{0, 0});
}

TEST_CASE("reshape finds the extent left open", "[ops]") {
  Tensor x = random({6}, 1).set_requires_grad(true);
  const Tensor y = x.reshape({2, -1});
  CHECK(y.shape() == Shape{2, 3});
  CHECK(reshape(y, {-1}).shape() == Shape{6});
  sum(y).backward();
  CHECK(x.grad().shape() == Shape{6});
  CHECK(zeros({0, 3}).reshape({-1, 3}).shape() == Shape{0, 3});
}
