#include "tandem/layers/layer_norm.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tandem/core/error.h"
#include "tandem/core/ops.h"

namespace tandem {

LayerNorm::LayerNorm(const Shape& normalized, LayerNormOptions options) : normalized_(normalized), options_(options) {
  if (normalized.rank() == 0 || normalized.numel() == 0)
    throw ValueError(fmt::format("LayerNorm: expected one or more axes of 1 or more, got {}", to_string(normalized)));
  if (!(options.eps >= 0) || !std::isfinite(options.eps))
    throw ValueError(fmt::format("LayerNorm: expected a finite eps >= 0, got {}", options.eps));
  if (options.scale) weight = empty(normalized, {options.dtype}).set_requires_grad(true);
  if (options.shift) bias = empty(normalized, {options.dtype}).set_requires_grad(true);
  init(0);
}

Tensor LayerNorm::forward(const Tensor& x) {
  output_shape(x.shape());
  return labelled("LayerNorm", [&] { return layer_norm(x, normalized_, weight, bias, options_.eps); });
}

Shape LayerNorm::output_shape(const Shape& x) const {
  const bool fits = x.rank() >= normalized_.rank() &&
                    std::equal(normalized_.begin(), normalized_.end(), x.end() - normalized_.rank());
  if (!fits)
    throw ShapeError(fmt::format("{}: expected x to end with the axes {}, got x{}", label("LayerNorm"),
                                 to_string(normalized_), to_string(x)));
  return x;
}

// The builder takes the last axis for granted.
std::string LayerNorm::text() const {
  if (normalized_.rank() != 1) return "";
  std::string text = "ln";
  if (options_.eps != LayerNormOptions{}.eps) text += fmt::format(":eps={}", options_.eps);
  if (!options_.scale) text += ":scale=off";
  if (!options_.shift) text += ":shift=off";
  return text;
}

void LayerNorm::members(MemberVisitor& v) {
  const int64_t n = normalized_.numel();
  if (options_.scale) v.parameter("weight", weight, Role::norm, Init::ones(), n, n);
  if (options_.shift) v.parameter("bias", bias, Role::norm, Init::zeros(), n, n);
}

std::unique_ptr<Module> LayerNorm::clone() const { return copy_of(*this, normalized_, options_); }

}  // namespace tandem
