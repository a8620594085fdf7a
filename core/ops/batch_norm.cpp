#include <cmath>

#include "tandem/core/ops/check.h"

namespace tandem {
namespace {

double checked_momentum(double momentum) {
  if (!(momentum >= 0 && momentum <= 1))
    throw ValueError(fmt::format("batch_norm: momentum {} is outside [0, 1]; PyTorch's 0.1 is Keras' 0.9", momentum));
  return momentum;
}

// How x falls into channels; throws, before anything is computed, if the operands do not fit.
struct Channels {
  int axis;
  int64_t count, values;  // channels, and values of each
};
Channels check(const Tensor& x, const Tensor& gamma, const Tensor& beta, const RunningStats& running,
               const BatchNormOptions& options, bool use_batch) {
  check_alike("batch_norm", {{"x", x}, {"gamma", gamma}, {"beta", beta}, {"running_mean", running.mean}, {"running_var", running.var}});
  if (x.rank() < 2 || x.rank() > 5)
    throw ShapeError(fmt::format("batch_norm: expected 2 to 5 axes (batch, channels, ...), got {} ({} axes)",
                                 describe("x", x), x.rank()));
  Channels c{x.shape().axis(options.channel_axis, "batch_norm"), 0, 0};
  if (c.axis == 0) throw ShapeError("batch_norm: expected channels on another axis than 0, the batch");
  c.count = x.shape()[c.axis];
  c.values = c.count > 0 ? x.numel() / c.count : 0;
  for (const Named& per_channel : {Named{"gamma", gamma}, Named{"beta", beta}, Named{"running_mean", running.mean},
                                   Named{"running_var", running.var}})
    if (per_channel.tensor.defined() && per_channel.tensor.shape() != Shape{c.count})
      throw ShapeError(fmt::format("batch_norm: expected {}[{}] for the {} channels on axis {} of {}, got {}",
                                   per_channel.name, c.count, c.count, c.axis, describe("x", x),
                                   describe(per_channel.name, per_channel.tensor)));
  if (running.mean.defined() != running.var.defined() || running.mean.defined() != running.batches.defined())
    throw ValueError("batch_norm: expected running mean, var and batches together, got some of them");
  if (running.batches.defined()) check_dtype("batch_norm", {"batches", running.batches}, Dtype::int64);
  if (!(options.eps >= 0) || !std::isfinite(options.eps))
    throw ValueError(fmt::format("batch_norm: eps must be a finite number >= 0, got {}", options.eps));
  if (!options.momentum.is_cumulative) checked_momentum(options.momentum.new_weight);
  if (use_batch && c.count > 0 && (c.values == 0 || (c.values == 1 && !options.allow_one_value)))
    throw ShapeError(fmt::format(
        "batch_norm: {} at least 2 values per channel, {} has {}; use a larger batch{}. Nothing was updated.",
        options.training ? "training needs" : "without running statistics eval needs", describe("x", x), c.values,
        options.training ? " or eval()" : ""));
  return c;
}

struct Statistics {
  Tensor mean, rstd;  // float64 [C]
};

Statistics batch_statistics(const Tensor& x, const Channels& c, RunningStats& running, const BatchNormOptions& options) {
  const Chunking chunks = chunking(x.shape());
  const TensorOptions f64{Dtype::float64, x.device()};
  Tensor moments = empty({chunks.chunks(), 2, c.count}, f64);
  Statistics s{empty({c.count}, f64), empty({c.count}, f64)};
  launch(BnMoments{x, moments, c.axis});
  const bool update = options.training && running.mean.defined();
  const Tensor none;
  launch(BnFinish{moments, s.mean, s.rstd, update ? running.mean : none, update ? running.var : none,
                  update ? running.batches : none, chunks.n, chunks.rows, c.values / chunks.n, options.eps,
                  options.momentum.new_weight, options.momentum.is_cumulative, options.unbiased_running_var});
  if (update)
    for (Tensor* changed : {&running.mean, &running.var, &running.batches}) changed->bump_version();
  return s;
}

Statistics running_statistics(const Tensor& x, const Channels& c, const RunningStats& running, double eps) {
  const TensorOptions f64{Dtype::float64, x.device()};
  Statistics s{empty({c.count}, f64), empty({c.count}, f64)};
  launch(BnFromRunning{running.mean, running.var, s.mean, s.rstd, eps});
  return s;
}

}  // namespace

Momentum Momentum::pytorch(double momentum) { return {checked_momentum(momentum)}; }
Momentum Momentum::keras(double momentum) { return {1 - checked_momentum(momentum)}; }

// y = xhat gamma + beta, xhat = (x - mean) rstd.  dgamma = sum dy xhat, dbeta = sum dy,
// dx = gamma rstd (dy - mean(dy) - xhat mean(dy xhat)), or gamma rstd dy with running statistics.
Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, RunningStats running,
                  const BatchNormOptions& options) {
  const bool use_batch = options.training || !running.mean.defined();
  const Channels c = check(x, gamma, beta, running, options, use_batch);
  Tensor y = empty_like(x);
  const bool need_x = x.requires_grad(), need_gamma = gamma.defined() && gamma.requires_grad(),
             need_beta = beta.defined() && beta.requires_grad();
  if (x.numel() == 0)
    return record("batch_norm", y, {x, gamma, beta}, [=](const Tensor& dy) -> Grads {
      const auto zero = [&] { return zeros({c.count}, {dy.dtype(), dy.device()}); };
      return {dy, need_gamma ? zero() : Tensor(), need_beta ? zero() : Tensor()};
    });
  const Statistics s =
      use_batch ? batch_statistics(x, c, running, options) : running_statistics(x, c, running, options.eps);
  launch(BnApply{x, s.mean, s.rstd, gamma, beta, y, c.axis});
  return record("batch_norm", y, {x, gamma, beta},
                [=, x = save(x), gamma = save(gamma)](const Tensor& dy) -> Grads {
                  Grads grads(3);
                  const Shape pair{2, c.count}, channels{c.count};
                  Tensor sums;
                  if (need_gamma || need_beta || use_batch)
                    sums = sum_over_rows(x, pair, Dtype::float64, Dtype::float64, [&](Tensor& lanes) {
                      launch(BnGradSums{dy, x, s.mean, s.rstd, lanes, c.axis});
                    });
                  if (need_gamma) grads[1] = slice(sums, 0, 1, 2).reshape(channels).to(dy.dtype());
                  if (need_beta) grads[2] = slice(sums, 0, 0, 1).reshape(channels).to(dy.dtype());
                  if (need_x)
                    launch(BnGradApply{dy, x, s.mean, s.rstd, gamma, use_batch ? sums : Tensor(), grads[0] = empty_like(x),
                                       c.axis, c.values});
                  return grads;
                });
}

}  // namespace tandem
