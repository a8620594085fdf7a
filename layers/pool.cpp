#include "tandem/layers/pool.h"

#include <fmt/format.h>

#include "tandem/core/error.h"

namespace tandem {

Tensor Flatten::forward(const Tensor& x) { return reshape(x, output_shape(x.shape())); }

Shape Flatten::output_shape(const Shape& x) const {
  if (x.rank() < 1) throw ShapeError(fmt::format("{}: expected x[N, ...], got a scalar", label("Flatten")));
  int64_t size = 1;
  for (int axis = 1; axis < x.rank(); ++axis) size *= x[axis];
  return {x[0], size};
}

Pool2d::Pool2d(const char* type, const char* kind, Op* op, const Pool2dOptions& options)
    : options_(options), type_(type), kind_(kind), op_(op) {
  pool2d_window(options_, type);  // for its checks
}

Tensor Pool2d::forward(const Tensor& x) {
  output_shape(x.shape());  // its checks name the layer
  return labelled(type_, [&] { return op_(x, options_); });
}

Shape Pool2d::output_shape(const Shape& x) const { return pool2d_shape(x, options_, label(type_).c_str()); }

std::string Pool2d::text() const {
  const Pool2dOptions& o = options_;
  std::string text = fmt::format("{}:{}", kind_, to_string(o.kernel));
  if (o.stride != 0 && o.stride != o.kernel) text += ":s=" + to_string(o.stride);
  if (o.padding != 0) text += ":p=" + to_string(o.padding);
  if (o.dilation != 1) text += ":d=" + to_string(o.dilation);
  if (o.ceil_mode) text += ":ceil";
  return text;
}

AvgPool2d::AvgPool2d(Pool2dOptions options) : Pool2d("AvgPool2d", "avgpool", avg_pool2d, options) {
  if (options_.dilation != 1)
    throw ValueError(fmt::format("AvgPool2d: expected dilation 1, got {}", to_string(options_.dilation)));
}

std::string AvgPool2d::text() const { return Pool2d::text() + (options_.count_padding ? "" : ":count_padding=off"); }

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
