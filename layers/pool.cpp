#include "tandem/layers/pool.h"

#include <fmt/format.h>

#include <algorithm>

#include "tandem/core/error.h"

namespace tandem {

namespace {

using Pair = std::pair<int64_t, int64_t>;

Pair pair_of(const std::optional<Pair>& both, int64_t one) { return both.value_or(Pair(one, one)); }

// What the four settings of a pool are in the end.
struct Resolved {
  Pair kernel, stride, padding, dilation;
  explicit Resolved(const Pool2dOptions& o)
      : kernel(pair_of(o.kernels, o.kernel)),
        stride(o.strides || o.stride > 0 ? pair_of(o.strides, o.stride) : kernel),
        padding(pair_of(o.paddings, o.padding)),
        dilation(pair_of(o.dilations, o.dilation)) {}
};

void check(const char* type, const Pool2dOptions& o) {
  const Resolved r(o);
  constexpr int64_t most = 1'000'000;  // so that no product of options overflows
  const auto within = [](const Pair& p, int64_t least) {
    return std::min(p.first, p.second) >= least && std::max(p.first, p.second) <= most;
  };
  if (!within(r.kernel, 1) || !within(r.stride, 1) || o.stride < 0 || !within(r.dilation, 1) || !within(r.padding, 0) ||
      2 * r.padding.first > r.kernel.first || 2 * r.padding.second > r.kernel.second) {
    throw ValueError(fmt::format(
        "{}: expected kernel, dilation and stride (0: the kernel's size) in [1, {}] and padding of at most half the "
        "kernel, got kernel {}x{}, stride {}x{}, padding {}x{}, dilation {}x{}",
        type, most, r.kernel.first, r.kernel.second, r.stride.first, r.stride.second, r.padding.first, r.padding.second,
        r.dilation.first, r.dilation.second));
  }
}

std::string size_text(const Pair& p) {
  return p.first == p.second ? fmt::format("{}", p.first) : fmt::format("{}x{}", p.first, p.second);
}

std::string text_of(const char* kind, const Pool2dOptions& o) {
  const Resolved r(o);
  std::string text = fmt::format("{}:{}", kind, size_text(r.kernel));
  if (r.stride != r.kernel) text += ":s=" + size_text(r.stride);
  if (r.padding != Pair(0, 0)) text += ":p=" + size_text(r.padding);
  if (r.dilation != Pair(1, 1)) text += ":d=" + size_text(r.dilation);
  if (o.ceil_mode) text += ":ceil";
  return text;
}

}  // namespace

Tensor Flatten::forward(const Tensor& x) { return reshape(x, output_shape(x.shape())); }

Shape Flatten::output_shape(const Shape& x) const {
  if (x.rank() < 1) throw ShapeError(fmt::format("{}: expected x[N, ...], got a scalar", label("Flatten")));
  int64_t size = 1;
  for (int axis = 1; axis < x.rank(); ++axis) size *= x[axis];
  return {x[0], size};
}

MaxPool2d::MaxPool2d(Pool2dOptions options) : options_(options) { check("MaxPool2d", options_); }

Tensor MaxPool2d::forward(const Tensor& x) {
  output_shape(x.shape());  // its checks name the layer
  return labelled("MaxPool2d", [&] { return max_pool2d(x, options_); });
}

Shape MaxPool2d::output_shape(const Shape& x) const { return pool2d_shape(x, options_, label("MaxPool2d").c_str()); }

std::string MaxPool2d::text() const { return text_of("maxpool", options_); }

AvgPool2d::AvgPool2d(Pool2dOptions options) : options_(options) {
  check("AvgPool2d", options_);
  const Pair dilation = Resolved(options_).dilation;
  if (dilation != Pair(1, 1)) {
    throw ValueError(fmt::format("AvgPool2d: expected dilation 1, got {}x{}", dilation.first, dilation.second));
  }
}

Tensor AvgPool2d::forward(const Tensor& x) {
  output_shape(x.shape());
  return labelled("AvgPool2d", [&] { return avg_pool2d(x, options_); });
}

Shape AvgPool2d::output_shape(const Shape& x) const { return pool2d_shape(x, options_, label("AvgPool2d").c_str()); }

std::string AvgPool2d::text() const {
  return text_of("avgpool", options_) + (options_.count_padding ? "" : ":count_padding=off");
}

Tensor GlobalAvgPool::forward(const Tensor& x) {
  output_shape(x.shape());
  return labelled("GlobalAvgPool", [&] { return global_avg_pool(x); });
}

Shape GlobalAvgPool::output_shape(const Shape& x) const {
  if (x.rank() != 4) {
    throw ShapeError(fmt::format("{}: expected x[N, H, W, C], got x{} (4 axes vs {})", label("GlobalAvgPool"),
                                 to_string(x), x.rank()));
  }
  return {x[0], x[3]};
}

}  // namespace tandem
