#include "tandem/layers/pool.h"

#include <fmt/format.h>

#include "tandem/core/error.h"

namespace tandem {

namespace {

std::string text_of(const char* kind, const Pool2dOptions& o) {
  std::string text = fmt::format("{}:{}", kind, to_string(o.kernel));
  if (o.stride != 0 && o.stride != o.kernel) text += ":s=" + to_string(o.stride);
  if (o.padding != 0) text += ":p=" + to_string(o.padding);
  if (o.dilation != 1) text += ":d=" + to_string(o.dilation);
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

MaxPool2d::MaxPool2d(Pool2dOptions options) : options_(options) {
  pool2d_window(options_, "MaxPool2d");  // for its checks
}

Tensor MaxPool2d::forward(const Tensor& x) {
  output_shape(x.shape());  // its checks name the layer
  return labelled("MaxPool2d", [&] { return max_pool2d(x, options_); });
}

Shape MaxPool2d::output_shape(const Shape& x) const { return pool2d_shape(x, options_, label("MaxPool2d").c_str()); }

std::string MaxPool2d::text() const { return text_of("maxpool", options_); }

AvgPool2d::AvgPool2d(Pool2dOptions options) : options_(options) {
  pool2d_window(options_, "AvgPool2d");  // for its checks
  if (options_.dilation != 1)
    throw ValueError(fmt::format("AvgPool2d: expected dilation 1, got {}", to_string(options_.dilation)));
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
