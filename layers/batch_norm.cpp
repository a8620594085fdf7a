#include "tandem/layers/batch_norm.h"

#include <fmt/format.h>

#include <cmath>

#include "tandem/core/compile.h"
#include "tandem/core/error.h"

namespace tandem {

namespace {

const char* on_off(bool on) { return on ? "on" : "off"; }

BatchNormLayerOptions of_ranks(BatchNormLayerOptions options, int min_rank, int max_rank) {
  options.min_rank = min_rank;
  options.max_rank = max_rank;
  return options;
}

// "4", "2 to 5"
std::string ranks(const BatchNormLayerOptions& o, const char* to) {
  return o.min_rank == o.max_rank ? fmt::format("{}", o.min_rank) : fmt::format("{}{}{}", o.min_rank, to, o.max_rank);
}

}  // namespace

BatchNormLayerOptions BatchNormLayerOptions::keras(double momentum) {
  return {.eps = 1e-3, .momentum = Momentum::keras(momentum), .unbiased_running_var = false, .allow_one_value = true};
}

BatchNorm::BatchNorm(int64_t channels, BatchNormLayerOptions o) : channels_(channels), options_(o) {
  if (channels < 1) throw ValueError(fmt::format("BatchNorm: expected at least 1 channel, got {}", channels));
  if (!(o.eps >= 0) || !std::isfinite(o.eps)) {
    throw ValueError(fmt::format("BatchNorm: expected a finite eps >= 0, got {}", o.eps));
  }
  if (!o.momentum.is_cumulative && !(o.momentum.new_weight >= 0 && o.momentum.new_weight <= 1)) {
    throw ValueError(fmt::format("BatchNorm: expected a momentum in [0, 1], got {}; PyTorch's 0.1 is Keras' 0.9",
                                 o.momentum.new_weight));
  }
  if (o.channel_axis < -1 || o.channel_axis == 0 || o.channel_axis > 4) {
    throw ValueError(fmt::format("BatchNorm: expected channel_axis -1 (the last) or 1 to 4, got {}", o.channel_axis));
  }
  if (o.min_rank < 2 || o.max_rank > 5 || o.min_rank > o.max_rank) {
    throw ValueError(fmt::format("BatchNorm: expected ranks within 2 to 5, got {}", ranks(o, " to ")));
  }
  if (o.zero_scale && !o.scale) throw ValueError("BatchNorm: expected scale where zero_scale is asked for, got none");
  if (o.scale) weight = empty({channels}, {o.dtype}).set_requires_grad(true);
  if (o.shift) bias = empty({channels}, {o.dtype}).set_requires_grad(true);
  if (o.track_running_stats) {
    running_mean = empty({channels}, {o.dtype});
    running_var = empty({channels}, {o.dtype});
    num_batches_tracked = empty({}, {Dtype::int64});
    skipped_ = empty({}, {Dtype::int64});
  }
  init(seed());
  if (o.frozen) freeze();
}

BatchNorm BatchNorm::pytorch(int64_t channels, double momentum) {
  return BatchNorm(channels, {.momentum = Momentum::pytorch(momentum)});
}

BatchNorm BatchNorm::keras(int64_t channels, double momentum) {
  return BatchNorm(channels, BatchNormLayerOptions::keras(momentum));
}

void BatchNorm::check_channels(const Shape& x) const {
  const int rank = x.rank(), axis = options_.channel_axis < 0 ? rank - 1 : options_.channel_axis;
  if (rank < options_.min_rank || rank > options_.max_rank) {
    throw ShapeError(fmt::format("{}: expected x of {} axes, got x{} ({})", label("BatchNorm"), ranks(options_, " to "),
                                 to_string(x), rank));
  }
  const auto name = [&](int a) { return a == rank - 1 ? std::string("the last axis") : fmt::format("axis {}", a); };
  if (axis < rank && x[axis] == channels_) return;
  std::string way_out = fmt::format("build it with {}, or change the layer before it", axis < rank ? x[axis] : x[1]);
  for (int other = rank - 1; other >= 1; --other) {  // axis 1, the usual mistake, is preferred
    if (x[other] != channels_) continue;
    const char* layout = other == rank - 1 ? "last" : "first";
    way_out = fmt::format("{} has {}: set channel_axis = {} if the data are channels-{}", name(other), channels_,
                          other == rank - 1 ? -1 : other, layout);
  }
  const std::string found = axis < rank ? fmt::format("{} of x{} has {}", name(axis), to_string(x), x[axis])
                                        : fmt::format("x{} has no axis {}", to_string(x), axis);
  throw ShapeError(fmt::format("{}: built for {} channels, but {}; {}", label("BatchNorm"), channels_, found, way_out));
}

void BatchNorm::check_batch(const Shape& x) const {
  if ((!is_training() || options_.frozen) && options_.track_running_stats) return;
  const int64_t values = x.numel() / channels_, least = options_.allow_one_value ? 1 : 2;
  if (values >= least) return;
  const std::string needs = fmt::format("needs at least {} value{} per channel, x{} has {}", least,
                                        least == 1 ? "" : "s", to_string(x), values);
  if (is_training()) {
    throw ShapeError(
        fmt::format("{}: training {}; use a larger batch, --last-batch drop|merge, or eval(). "
                    "Nothing was updated.",
                    label("BatchNorm"), needs));
  }
  throw ShapeError(fmt::format("{}: eval without running statistics {}; use a larger batch, or track_running_stats",
                               label("BatchNorm"), needs));
}

void BatchNorm::freeze() {
  if (!options_.track_running_stats) {
    throw ValueError(
        fmt::format("{}: expected running statistics to freeze, this layer keeps none", label("BatchNorm")));
  }
  structure_changed();
  options_.frozen = true;
  for (Tensor* own : {&weight, &bias}) {
    if (!own->defined()) continue;
    own->set_requires_grad(false);
    own->zero_grad();  // or an optimizer would still step it
  }
}

void BatchNorm::unfreeze() {
  structure_changed();
  options_.frozen = false;
  for (Tensor* own : {&weight, &bias}) {
    if (own->defined()) own->set_requires_grad(true);
  }
}

Tensor BatchNorm::forward(const Tensor& x) { return forward(x, {}); }

Tensor BatchNorm::forward(const Tensor& x, const Tensor& mask) {
  check_channels(x.shape());
  check_batch(x.shape());
  RunningStats running{running_mean, running_var, num_batches_tracked, skipped_};
  if (gather_) {
    *gather_ = merge(*gather_, moments(x, options_.channel_axis, mask));
    running = {};  // normalise by the batch's statistics, and change none
  }
  const Tensor y = labelled("BatchNorm", [&] {
    return batch_norm(x, weight, bias, running,
                      {.eps = options_.eps,
                       .momentum = options_.momentum,
                       .unbiased_running_var = options_.unbiased_running_var,
                       .channel_axis = options_.channel_axis,
                       .training = (is_training() && !options_.frozen) || gather_,
                       .allow_one_value = options_.allow_one_value},
                      mask);
  });
  if (skipped_.defined() && skipped_.device() == Device{}) {
    on_host("WarnOfSkipped", skipped_, [this](const View& skipped) { warn_of_skipped(*skipped.as<int64_t>()); });
  }
  return y;
}

void BatchNorm::warn_of_skipped(int64_t skipped) {
  const bool first = skipped > 0 && !warned_;
  warned_ = skipped > 0;
  if (!first) return;
  warn(fmt::format("{}: the batch mean or variance of {} of {} channels is not finite in training batch {}; their "
                   "running statistics were left as they were",
                   label("BatchNorm"), skipped, channels_, *num_batches_tracked.data<int64_t>()));
}

Shape BatchNorm::output_shape(const Shape& x) const {
  check_channels(x);
  return x;
}

std::string BatchNorm::text() const {
  const BatchNormLayerOptions& o = options_;
  const bool keras = !o.unbiased_running_var && o.allow_one_value;
  const BatchNormLayerOptions base = keras ? BatchNormLayerOptions::keras() : BatchNormLayerOptions{};
  std::string text = keras ? "bn:keras" : "bn";
  if (o.eps != base.eps) text += fmt::format(":eps={}", o.eps);
  if (o.momentum.is_cumulative) {
    text += ":momentum=cumulative";
  } else if (o.momentum.new_weight != base.momentum.new_weight) {
    const double w = o.momentum.new_weight;  // in Keras' convention if that gives exactly w back
    text += keras && 1 - (1 - w) == w ? fmt::format(":momentum={}", 1 - w) : fmt::format(":momentum=pytorch({})", w);
  }
  if (o.unbiased_running_var != base.unbiased_running_var)
    text += fmt::format(":unbiased={}", on_off(o.unbiased_running_var));
  if (o.allow_one_value != base.allow_one_value) text += fmt::format(":one_value={}", on_off(o.allow_one_value));
  if (!o.scale) text += ":scale=off";
  if (!o.shift) text += ":shift=off";
  if (o.zero_scale) text += ":zero";
  if (o.frozen) text += ":frozen";
  if (o.min_rank != base.min_rank || o.max_rank != base.max_rank) text += ":rank=" + ranks(o, "-");
  if (!o.track_running_stats) text += ":track=off";
  if (o.channel_axis != base.channel_axis) text += fmt::format(":axis={}", o.channel_axis);
  return text;
}

void BatchNorm::members(MemberVisitor& v) {
  if (options_.scale)
    v.parameter("weight", weight, Role::norm, options_.zero_scale ? Init::zeros() : Init::ones(), channels_, channels_);
  if (options_.shift) v.parameter("bias", bias, Role::norm, Init::zeros(), channels_, channels_);
  if (!options_.track_running_stats) return;
  v.buffer("running_mean", running_mean, true);
  v.buffer("running_var", running_var, true);
  v.buffer("num_batches_tracked", num_batches_tracked, true);
  v.buffer("skipped_updates", skipped_, false);
}

void BatchNorm::on_init() {
  if (!options_.track_running_stats) return;
  running_mean.fill(0);
  running_var.fill(1);
  num_batches_tracked.fill(0);
  skipped_.fill(0);
}

std::unique_ptr<Module> BatchNorm::clone() const {
  auto copy = copy_of(*this, channels_, options_);
  static_cast<BatchNorm&>(*copy).warned_ = warned_;
  return copy;
}

BatchNorm1d::BatchNorm1d(int64_t channels, BatchNormLayerOptions o) : BatchNorm(channels, of_ranks(o, 2, 3)) {}
BatchNorm2d::BatchNorm2d(int64_t channels, BatchNormLayerOptions o) : BatchNorm(channels, of_ranks(o, 4, 4)) {}
BatchNorm3d::BatchNorm3d(int64_t channels, BatchNormLayerOptions o) : BatchNorm(channels, of_ranks(o, 5, 5)) {}

}  // namespace tandem
