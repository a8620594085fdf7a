#include "tandem/layers/group_norm.h"

#include <fmt/format.h>

#include <cmath>

#include "tandem/core/error.h"
#include "tandem/core/ops.h"

namespace tandem {

GroupNorm::GroupNorm(int64_t groups, int64_t channels, GroupNormOptions options)
    : groups_(groups), channels_(channels), options_(options) {
  if (channels < 1 || groups < 1 || channels % groups != 0)
    throw ValueError(
        fmt::format("GroupNorm: expected groups that divide the channels, got {} and {}", groups, channels));
  if (!(options.eps >= 0) || !std::isfinite(options.eps))
    throw ValueError(fmt::format("GroupNorm: expected a finite eps >= 0, got {}", options.eps));
  if (options.scale) weight = empty({channels}, {options.dtype}).set_requires_grad(true);
  if (options.shift) bias = empty({channels}, {options.dtype}).set_requires_grad(true);
  init(0);
}

Tensor GroupNorm::forward(const Tensor& x) {
  output_shape(x.shape());
  return labelled("GroupNorm", [&] { return group_norm(x, groups_, weight, bias, options_.eps); });
}

Shape GroupNorm::output_shape(const Shape& x) const {
  if (x.rank() < 2 || x[x.rank() - 1] != channels_)
    throw ShapeError(fmt::format("{}: expected x[N, ..., {}], got x{}", label("GroupNorm"), channels_, to_string(x)));
  return x;
}

std::string GroupNorm::text() const {
  std::string text = fmt::format("gn:{}", groups_);
  if (options_.eps != GroupNormOptions{}.eps) text += fmt::format(":eps={}", options_.eps);
  if (!options_.scale) text += ":scale=off";
  if (!options_.shift) text += ":shift=off";
  return text;
}

void GroupNorm::members(MemberVisitor& v) {
  if (options_.scale) v.parameter("weight", weight, Role::norm, Init::ones(), channels_, channels_);
  if (options_.shift) v.parameter("bias", bias, Role::norm, Init::zeros(), channels_, channels_);
}

std::unique_ptr<Module> GroupNorm::clone() const { return copy_of(*this, groups_, channels_, options_); }

}  // namespace tandem
