#include <cmath>

#include "tandem/core/ops/check.h"

namespace tandem {
namespace {

double checked_momentum(double momentum) {
  if (!(momentum >= 0 && momentum <= 1))
    throw ValueError(fmt::format("batch_norm: momentum {} is outside [0, 1]; PyTorch's 0.1 is Keras' 0.9", momentum));
  return momentum;
}

// How many positions a mask takes.
int64_t marked(const Tensor& mask) {
  int64_t count = 0;
  for (const double v : mask.to(Dtype::float64).to_vector<double>()) count += v != 0;
  return count;
}

// How x falls into channels; throws, before anything is computed, if the operands do not fit.
struct Channels {
  int axis;
  int64_t count, values;  // channels, and values of each that count
};
Channels check(const Tensor& x, const Tensor& gamma, const Tensor& beta, const RunningStats& running,
               const BatchNormOptions& options, const Tensor& mask, bool use_batch) {
  check_alike(
      "batch_norm",
      {{"x", x}, {"gamma", gamma}, {"beta", beta}, {"running_mean", running.mean}, {"running_var", running.var}});
  if (x.rank() < 2 || x.rank() > 5)
    throw ShapeError(fmt::format("batch_norm: expected 2 to 5 axes (batch, channels, ...), got {} ({} axes)",
                                 describe("x", x), x.rank()));
  Channels c{x.shape().axis(options.channel_axis, "batch_norm"), 0, 0};
  if (c.axis == 0) throw ShapeError("batch_norm: expected channels on another axis than 0, the batch");
  c.count = x.shape()[c.axis];
  c.values = c.count > 0 ? x.numel() / c.count : 0;
  check_mask("batch_norm", x, c.axis, mask);
  if (mask.defined() && use_batch) c.values = marked(mask);
  for (const Named& per_channel : {Named{"gamma", gamma}, Named{"beta", beta}, Named{"running_mean", running.mean},
                                   Named{"running_var", running.var}})
    if (per_channel.tensor.defined() && per_channel.tensor.shape() != Shape{c.count})
      throw ShapeError(fmt::format("batch_norm: expected {}[{}] for the {} channels on axis {} of {}, got {}",
                                   per_channel.name, c.count, c.count, c.axis, describe("x", x),
                                   describe(per_channel.name, per_channel.tensor)));
  if (running.mean.defined() != running.var.defined() || running.mean.defined() != running.batches.defined())
    throw ValueError("batch_norm: expected running mean, var and batches together, got some of them");
  for (const Named& counter : {Named{"batches", running.batches}, Named{"skipped", running.skipped}})
    if (counter.tensor.defined()) check_dtype("batch_norm", counter, Dtype::int64);
  if (!(options.eps >= 0) || !std::isfinite(options.eps))
    throw ValueError(fmt::format("batch_norm: eps must be a finite number >= 0, got {}", options.eps));
  if (!options.momentum.is_cumulative) checked_momentum(options.momentum.new_weight);
  const int64_t least = options.allow_one_value ? 1 : 2;
  if (use_batch && c.count > 0 && c.values < least)
    throw ShapeError(fmt::format(
        "batch_norm: {} at least {} value{} per channel, {} has {}{}; use a larger batch{}. "
        "Nothing was updated.",
        options.training ? "training needs" : "without running statistics eval needs", least, least == 1 ? "" : "s",
        describe("x", x), c.values, mask.defined() ? " in the mask" : "", options.training ? " or eval()" : ""));
  return c;
}

struct Statistics {
  Tensor mean, rstd;  // float64 [C]
};

Statistics batch_statistics(const Tensor& x, const Tensor& mask, const Channels& c, RunningStats& running,
                            const BatchNormOptions& options) {
  const TensorOptions f64{Dtype::float64, x.device()};
  Statistics s{empty({c.count}, f64), empty({c.count}, f64)};
  const RunningStats kept = options.training ? running : RunningStats{};
  const auto [weight, is_cumulative] = options.momentum;
  if (x.device().kind == Device::Kind::cuda) {
    launch(BnStatistics{x, mask, s.mean, s.rstd, kept.mean, kept.var, kept.batches, kept.skipped, c.axis, options.eps,
                        weight, is_cumulative, options.unbiased_running_var});
  } else {
    const Chunking chunks = chunking(x.shape());
    Tensor moments = empty({chunks.chunks(), 2, c.count}, f64);
    const Tensor counts = mask.defined() ? empty({chunks.chunks()}, f64) : Tensor();
    launch(BnMoments{x, mask, moments, counts, c.axis});
    launch(BnFinish{moments, counts, s.mean, s.rstd, kept.mean, kept.var, kept.batches, kept.skipped, chunks.n,
                    chunks.rows, c.values / chunks.n, options.eps, weight, is_cumulative,
                    options.unbiased_running_var});
  }
  for (Tensor changed : {kept.mean, kept.var, kept.batches, kept.skipped})
    if (changed.defined()) changed.bump_version();
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
// dx = gamma rstd (dy - mean(dy) - xhat mean(dy xhat)), or gamma rstd dy with running statistics. With a mask the two
// means are sums over all positions divided by those that count, and positions that do not have gamma rstd dy.
Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, RunningStats running,
                  const BatchNormOptions& options, const Tensor& mask) {
  const bool use_batch = options.training || !running.mean.defined();
  const Channels c = check(x, gamma, beta, running, options, mask, use_batch);
  Tensor y = empty_like(x);
  const bool need_x = x.requires_grad(), need_gamma = gamma.defined() && gamma.requires_grad(),
             need_beta = beta.defined() && beta.requires_grad();
  if (x.numel() == 0)
    return record("batch_norm", y, {x, gamma, beta}, [=](const Tensor& dy) -> Grads {
      const auto zero = [&] { return zeros({c.count}, {dy.dtype(), dy.device()}); };
      return {dy, need_gamma ? zero() : Tensor(), need_beta ? zero() : Tensor()};
    });
  const Tensor marks = mask.defined() && use_batch ? mask.to(x.dtype()) : Tensor();
  const Statistics s =
      use_batch ? batch_statistics(x, marks, c, running, options) : running_statistics(x, c, running, options.eps);
  launch(BnApply{x, s.mean, s.rstd, gamma, beta, y, c.axis});
  return record("batch_norm", y, {x, gamma, beta}, [=, x = save(x), gamma = save(gamma)](const Tensor& dy) -> Grads {
    Grads grads(3);
    const Shape pair{2, c.count};
    Tensor sums;
    const bool finishes = dy.device().kind == Device::Kind::cuda;  // in one call
    if (need_gamma) grads[1] = empty_like(gamma);
    if (need_beta) grads[2] = empty({c.count}, {dy.dtype(), dy.device()});
    if (need_gamma || need_beta || use_batch)
      sums = sum_over_rows(x, pair, Dtype::float64, Dtype::float64, [&](Tensor& lanes) {
        launch(BnGradSums{dy, x, s.mean, s.rstd, lanes, c.axis, finishes ? grads[1] : Tensor(),
                          finishes ? grads[2] : Tensor()});
      });
    if ((need_gamma || need_beta) && !finishes) launch(BnGradFinish{sums, s.rstd, grads[1], grads[2]});
    if (need_x)
      launch(BnGradApply{dy, x, marks, s.mean, s.rstd, gamma, use_batch ? sums : Tensor(), grads[0] = empty_like(x),
                         c.axis, c.values});
    return grads;
  });
}

}  // namespace tandem
