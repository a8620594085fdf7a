#include "tandem/core/ops/check.h"

namespace tandem {
namespace {

Window window_of(const Pool2dOptions& options) {
  const std::pair kernel = options.kernels.value_or(std::pair(options.kernel, options.kernel));
  const std::pair stride =
      options.strides.value_or(options.stride > 0 ? std::pair(options.stride, options.stride) : kernel);
  const std::pair padding = options.paddings.value_or(std::pair(options.padding, options.padding));
  const std::pair dilation = options.dilations.value_or(std::pair(options.dilation, options.dilation));
  return {kernel.first,   kernel.second,  stride.first,   stride.second,
          padding.first,  padding.second, dilation.first, dilation.second};
}

int64_t output_extent(const char* op, const char* axis, int64_t size, int64_t kernel, int64_t stride, int64_t padding,
                      int64_t dilation, bool ceil_mode) {
  if (kernel < 1 || stride < 1 || dilation < 1 || padding < 0 || 2 * padding > kernel)
    throw ValueError(fmt::format("{}: expected kernel, stride and dilation >= 1 and padding in [0, kernel/2], got kernel "
                                 "{}, stride {}, dilation {}, padding {} along {}",
                                 op, kernel, stride, dilation, padding, axis));
  const int64_t room = size + 2 * padding - dilation * (kernel - 1) - 1;
  if (room < 0)
    throw ShapeError(fmt::format("{}: expected an input of at least {} along {}, got {}", op, size - room, axis, size));
  int64_t extent = (ceil_mode ? room + stride - 1 : room) / stride + 1;
  // A window must start inside the image or its leading padding, or it would pool nothing.
  if (ceil_mode && (extent - 1) * stride >= size + padding) --extent;
  return extent;
}

}  // namespace

Shape pool2d_shape(const Shape& x, const Pool2dOptions& options, const char* op) {
  if (x.rank() != 4) throw ShapeError(fmt::format("{}: expected x[N, H, W, C], got x{}", op, to_string(x)));
  if (options.stride < 0) throw ValueError(fmt::format("{}: expected stride >= 0, got {}", op, options.stride));
  const Window w = window_of(options);
  return {x[0], output_extent(op, "H", x[1], w.kernel_h, w.stride_h, w.padding_h, w.dilation_h, options.ceil_mode),
          output_extent(op, "W", x[2], w.kernel_w, w.stride_w, w.padding_w, w.dilation_w, options.ceil_mode), x[3]};
}

// y = the largest of each window.  dx takes dy where that value was.
Tensor max_pool2d(const Tensor& x, const Pool2dOptions& options) {
  check_floating("max_pool2d", {"x", x});
  Tensor y = empty(pool2d_shape(x.shape(), options, "max_pool2d"), {x.dtype(), x.device()});
  Tensor index = empty(y.shape(), {Dtype::int32, x.device()});
  launch(MaxPool{x, y, index, window_of(options)});
  return record("max_pool2d", y, {x}, [index, shape = x.shape()](const Tensor& dy) -> Grads {
    Tensor dx = empty(shape, {dy.dtype(), dy.device()});
    launch(MaxPoolGrad{dy, index, dx});
    return {dx};
  });
}

// y = the mean of each window.  dx spreads dy evenly over the window.
Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& options) {
  check_floating("avg_pool2d", {"x", x});
  const Shape shape = pool2d_shape(x.shape(), options, "avg_pool2d");
  const Window window = window_of(options);
  if (window.dilation_h != 1 || window.dilation_w != 1)
    throw ValueError(fmt::format("avg_pool2d: expected dilation 1, got {} and {}", window.dilation_h, window.dilation_w));
  Tensor y = empty(shape, {x.dtype(), x.device()});
  launch(AvgPool{x, y, window, options.count_padding});
  return record("avg_pool2d", y, {x}, [window, count = options.count_padding, from = x.shape()](const Tensor& dy) -> Grads {
    Tensor dx = empty(from, {dy.dtype(), dy.device()});
    launch(AvgPoolGrad{dy, dx, window, count});
    return {dx};
  });
}

Tensor global_avg_pool(const Tensor& x) {
  if (x.rank() != 4)
    throw ShapeError(fmt::format("global_avg_pool: expected x[N, H, W, C], got {}", describe("x", x)));
  return mean(x, {1, 2});
}

}  // namespace tandem
