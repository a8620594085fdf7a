// Batch norm: running statistics in each convention, well-known numbers, hard data. The outputs and gradients of
// every layout are in the op table; the layer is tested in layers_test.cpp.
#include <cmath>

#include "catch.hpp"
#include "helpers.h"
#include "reference.h"
#include "tandem/core/autograd.h"
#include "tandem/core/error.h"
#include "tandem/core/ops.h"

using namespace tandem;
using namespace tandem::test;

using Values = std::vector<double>;

namespace {

RunningStats fresh(int64_t channels, Dtype dtype = Dtype::float64) {
  return {zeros({channels}, {dtype}), ones({channels}, {dtype}), zeros({}, {Dtype::int64})};
}

Tensor f64(const Values& data, const Shape& shape) { return Tensor::from(data, shape); }

// Checks `running` against statistics moved from 0 and 1 by the batches, computed one by one in float64.
void check_running(const Shape& shape, int channel_axis, const Momentum& momentum, bool unbiased, Dtype dtype) {
  const int64_t channels = shape[shape.axis(channel_axis, "test")];
  RunningStats running = fresh(channels, dtype);
  Values mean(channels, 0), var(channels, 1);
  for (int step = 1; step <= 4; ++step) {
    const Tensor x = random(shape, step, dtype, -1, 3);
    batch_norm(x, {}, {}, running,
               {.momentum = momentum, .unbiased_running_var = unbiased, .channel_axis = channel_axis});
    const auto m = reference::moments({shape, values(x)}, channel_axis);
    const double w = momentum.is_cumulative ? 1.0 / step : momentum.new_weight;
    const double n = static_cast<double>(m.count);
    for (int64_t c = 0; c < channels; ++c) {
      mean[c] += w * (m.mean[c] - mean[c]);
      var[c] += w * (m.var[c] * (unbiased ? n / (n - 1) : 1) - var[c]);
    }
    CHECK(running.batches.item() == step);
    const double tolerance = dtype == Dtype::float32 ? 2e-6 : 1e-13;
    for (int64_t c = 0; c < channels; ++c) {
      CHECK(values(running.mean)[c] == Approx(mean[c]).margin(tolerance).epsilon(tolerance));
      CHECK(values(running.var)[c] == Approx(var[c]).margin(tolerance).epsilon(tolerance));
    }
  }
}

}  // namespace

TEST_CASE("Running statistics follow each convention in every layout", "[batch_norm]") {
  const Momentum conventions[] = {Momentum::pytorch(0.1), Momentum::keras(0.99), Momentum::cumulative(),
                                  Momentum::pytorch(0), Momentum::pytorch(1)};
  for (Dtype dtype : {Dtype::float32, Dtype::float64}) {
    for (const Momentum& momentum : conventions) {
      for (bool unbiased : {true, false}) {
        INFO(name_of(dtype) << ", weight " << momentum.new_weight << (momentum.is_cumulative ? " cumulative" : "")
                            << (unbiased ? ", unbiased" : ", biased"));
        check_running({7, 3}, -1, momentum, unbiased, dtype);
        check_running({300, 5}, 1, momentum, unbiased, dtype);
        check_running({3, 4, 5, 2}, -1, momentum, unbiased, dtype);
        check_running({3, 4, 5, 2}, 1, momentum, unbiased, dtype);
        check_running({3, 2, 2, 2, 4}, 2, momentum, unbiased, dtype);
      }
    }
  }
}

TEST_CASE("Momentum conventions are complements", "[batch_norm]") {
  CHECK(Momentum::pytorch(0.1).new_weight == 0.1);
  CHECK(Momentum::keras(0.9).new_weight == Approx(0.1));
  CHECK(Momentum::keras(1).new_weight == 0);
}

// [[1, 2, 3], [4, 5, 6]]: 1.5 / sqrt(2.25 + eps), running mean 0.1 * mean, running variance 0.9 + 0.1 * 4.5.
TEST_CASE("Two rows normalise to just under one, and move the statistics as PyTorch does", "[batch_norm]") {
  RunningStats running = fresh(3);
  const Tensor x = f64({1, 2, 3, 4, 5, 6}, {2, 3});
  const double y = 0.9999977777851852;
  CHECK(values(batch_norm(x, {}, {}, running)) == Values{-y, -y, -y, y, y, y});
  const Values mean = values(running.mean), var = values(running.var);
  for (int c = 0; c < 3; ++c) {
    CHECK(mean[c] == Approx(0.25 + 0.1 * c).epsilon(1e-15));
    CHECK(var[c] == Approx(1.35).epsilon(1e-15));
  }
}

TEST_CASE("Eval uses the running statistics, row by row, and changes none", "[batch_norm]") {
  RunningStats running = {f64({1, 2}, {2}), f64({4, 9}, {2}), full({}, 5, {Dtype::int64})};
  const Tensor x = random({6, 2}, 1, Dtype::float64);
  const Tensor all = batch_norm(x, {}, {}, running, {.training = false});
  CHECK(values(all)[0] == Approx((values(x)[0] - 1) / std::sqrt(4 + 1e-5)).epsilon(1e-14));
  for (int64_t i = 0; i < 6; ++i) {
    const Tensor one = batch_norm(slice(x, 0, i, i + 1), {}, {}, running, {.training = false});
    CHECK(bytes(one) == bytes(slice(all, 0, i, i + 1)));
  }
  CHECK(values(running.mean) == Values{1, 2});
  CHECK(values(running.var) == Values{4, 9});
  CHECK(running.batches.item() == 5);
}

TEST_CASE("A refused call moves nothing", "[batch_norm]") {
  RunningStats running = fresh(3);
  const auto refused = [&](const Tensor& x, const Tensor& gamma, const BatchNormOptions& options) {
    CHECK_THROWS_AS(batch_norm(x, gamma, {}, running, options), Error);
    CHECK(values(running.mean) == Values{0, 0, 0});
    CHECK(values(running.var) == Values{1, 1, 1});
    CHECK(running.batches.item() == 0);
  };
  refused(zeros({1, 3}, {Dtype::float64}), {}, {});
  refused(zeros({4, 2}, {Dtype::float64}), {}, {});
  refused(zeros({4, 3}), {}, {});
  refused(zeros({4, 3}, {Dtype::float64}), zeros({2}, {Dtype::float64}), {});
  refused(zeros({4, 3}, {Dtype::float64}), {}, {.eps = -1});
  refused(zeros({4, 3}, {Dtype::float64}), {}, {.momentum = {1.5}});
}

TEST_CASE("Training moves the statistics under NoGrad too, and without gamma", "[batch_norm]") {
  const NoGrad no_grad;
  RunningStats running = fresh(2);
  batch_norm(f64({1, 2, 3, 6}, {2, 2}), {}, {}, running);
  CHECK(values(running.mean) == Values{0.1 * 2, 0.1 * 4});
}

TEST_CASE("Backward after the statistics moved again is still right", "[batch_norm]") {
  RunningStats running = fresh(2);
  Tensor x = random({5, 2}, 1, Dtype::float64).set_requires_grad(true);
  const Tensor y = batch_norm(x, {}, {}, running);
  const Tensor seed = random({5, 2}, 2, Dtype::float64);
  y.backward(seed, true);
  const auto first = bytes(x.grad());
  x.zero_grad();
  batch_norm(random({5, 2}, 3, Dtype::float64), {}, {}, running);  // the layer, called on other data
  y.backward(seed);
  CHECK(bytes(x.grad()) == first);
}

TEST_CASE("The gradient of batch statistics has no mean and no part along xhat", "[batch_norm]") {
  Tensor x = random({64, 3}, 1, Dtype::float64).set_requires_grad(true);
  const Tensor y = batch_norm(x, {}, {}, {}, {.eps = 1e-12});
  y.backward(random({64, 3}, 2, Dtype::float64));
  for (double v : values(sum(x.grad(), {0}))) CHECK(std::fabs(v) < 1e-12);
  for (double v : values(sum(x.grad() * y.detach(), {0}))) CHECK(std::fabs(v) < 1e-9);  // eps lets a little through
}

TEST_CASE("Hard data in float32 keep float64's answer", "[batch_norm]") {
  const auto worst = [](double mean, double std) {
    const Tensor x = (random({4096, 2}, 1, Dtype::float64) * std + mean).to(Dtype::float32);
    const auto m = reference::moments({x.shape(), values(x)}, -1);
    const auto want = reference::normalize({x.shape(), values(x)}, m.mean, m.var, {}, {}, 1e-5, -1).data;
    const Values got = values(batch_norm(x, {}, {}, {}));
    double error = 0;
    for (size_t i = 0; i < got.size(); ++i) error = std::max(error, std::fabs(got[i] - want[i]));
    return error;
  };
  for (double mean : {0.0, 1e2, 1e4, 1e6}) CHECK(worst(mean, 1) < 3e-7);
  CHECK(worst(0, 1e19) < 3e-7);
  CHECK(worst(0, 1e-3) < 3e-7);
}

TEST_CASE("A constant channel gives exactly beta", "[batch_norm]") {
  for (double value : {0.1, 1e8, 1e10 / 3, -3.0}) {
    for (double eps : {1e-5, 0.0}) {
      const Tensor x = full({16, 2}, value), beta = Tensor::from(std::vector<float>{0.5, -2}, {2});
      const Values y = values(batch_norm(x, {}, beta, {}, {.eps = eps}));
      for (size_t i = 0; i < y.size(); ++i) CHECK(y[i] == (i % 2 ? -2 : 0.5));
    }
  }
}

TEST_CASE("A channel with a NaN or an infinity spoils neither its neighbour nor the running statistics",
          "[batch_norm]") {
  for (double bad : {std::nan(""), HUGE_VAL}) {
    RunningStats running = fresh(2);
    Values data = values(random({16, 2}, 1, Dtype::float64));
    const Tensor clean = batch_norm(f64(data, {16, 2}), {}, {}, fresh(2));
    data[6] = bad;
    const Values y = values(batch_norm(f64(data, {16, 2}), {}, {}, running));
    for (size_t i = 0; i < 16; ++i) {
      CHECK(std::isnan(y[2 * i]));
      CHECK(y[2 * i + 1] == values(clean)[2 * i + 1]);
    }
    CHECK(values(running.mean)[0] == 0);
    CHECK(values(running.var)[0] == 1);
    CHECK(values(running.mean)[1] != 0);
    CHECK(running.batches.item() == 1);
  }
}
