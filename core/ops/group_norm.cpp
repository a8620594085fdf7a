#include "tandem/core/ops/check.h"

namespace tandem {
namespace {

// xhat of x[groups, values]: each group to mean 0 and variance 1. That is batch norm with the groups as channels.
Tensor normalize_groups(const Tensor& x, int64_t groups, int64_t values, double eps) {
  const BatchNormOptions options{.eps = eps, .channel_axis = 1, .training = true, .allow_one_value = true};
  return batch_norm(x.reshape({1, groups, values}), {}, {}, {}, options);
}

Tensor scale_and_shift(Tensor y, const Tensor& gamma, const Tensor& beta) {
  if (gamma.defined()) y = y * gamma;
  return beta.defined() ? y + beta : y;
}

void check_affine(const char* op, const Tensor& x, const Tensor& gamma, const Tensor& beta, const Shape& shape) {
  check_alike(op, {{"x", x}, {"gamma", gamma}, {"beta", beta}});
  for (const Named& one : {Named{"gamma", gamma}, Named{"beta", beta}})
    if (one.tensor.defined() && one.tensor.shape() != shape)
      throw ShapeError(fmt::format("{}: expected {}{} for {}, got {}", op, one.name, to_string(shape), describe("x", x),
                                   describe(one.name, one.tensor)));
}

}  // namespace

// y = xhat gamma + beta over the last axes.
Tensor layer_norm(const Tensor& x, const Shape& normalized, const Tensor& gamma, const Tensor& beta, double eps) {
  check_affine("layer_norm", x, gamma, beta, normalized);
  const int leading = x.rank() - normalized.rank();
  bool fits = leading >= 0 && normalized.rank() > 0 && normalized.numel() > 0;
  for (int i = 0; fits && i < normalized.rank(); ++i) fits = x.dim(leading + i) == normalized[i];
  if (!fits)
    throw ShapeError(
        fmt::format("layer_norm: expected x to end with the axes {}, got {}", to_string(normalized), describe("x", x)));
  const int64_t values = normalized.numel(), groups = values > 0 ? x.numel() / values : 0;
  return scale_and_shift(normalize_groups(x, groups, values, eps).reshape(x.shape()), gamma, beta);
}

// As layer_norm over (pixels, channels of the group); only there do a group's values lie apart in memory.
Tensor group_norm(const Tensor& x, int64_t groups, const Tensor& gamma, const Tensor& beta, double eps) {
  if (x.rank() < 2) throw ShapeError(fmt::format("group_norm: expected x[N, ..., C], got {}", describe("x", x)));
  const int64_t n = x.dim(0), c = x.dim(-1);
  check_affine("group_norm", x, gamma, beta, {c});
  if (groups < 1 || c % groups != 0)
    throw ShapeError(fmt::format("group_norm: expected a number of groups that divides the {} channels of {}, got {}",
                                 c, describe("x", x), groups));
  const int64_t pixels = n > 0 && c > 0 ? x.numel() / (n * c) : 0, width = c / groups;
  const std::vector<int> swap = {0, 2, 1, 3};
  const Tensor apart = permute(x.reshape({n, pixels, groups, width}), swap);
  const Tensor xhat = normalize_groups(apart, n * groups, pixels * width, eps).reshape(apart.shape());
  return scale_and_shift(permute(xhat, swap).reshape(x.shape()), gamma, beta);
}

}  // namespace tandem
