#include <algorithm>

#include "tandem/core/ops/check.h"

namespace tandem {
const Window& check_window(const char* op, const Window& w) {
  constexpr int64_t most = 1'000'000;
  const auto within = [](int64_t least, std::initializer_list<Size2> sizes) {
    return std::all_of(sizes.begin(), sizes.end(), [=](Size2 s) {
      return s.h >= least && s.w >= least && s.h <= most && s.w <= most;
    });
  };
  if (!within(1, {w.kernel, w.stride, w.dilation}) || !within(0, {w.padding}))
    throw ValueError(fmt::format("{}: expected kernel, stride and dilation in [1, {}] and padding in [0, {}], got kernel "
                                 "{}, stride {}, dilation {}, padding {}",
                                 op, most, most, to_string(w.kernel), to_string(w.stride), to_string(w.dilation),
                                 to_string(w.padding)));
  return w;
}

Shape window_shape(const char* op, const Shape& x, const Window& w, int64_t channels, bool ceil_mode) {
  const auto extent = [&](const char* axis, int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
    const int64_t reach = dilation * (kernel - 1) + 1, outside = ceil_mode ? stride - 1 : 0;
    const int64_t room = size + 2 * padding + outside - reach;
    if (room < 0)
      throw ShapeError(fmt::format("{}: expected an input of at least {} along {} for a window of {} with padding {}, "
                                   "got {}",
                                   op, std::max<int64_t>(1, reach - 2 * padding - outside), axis, reach, padding, size));
    const int64_t n = room / stride + 1;
    // A window must start inside the image or its leading padding, or it would pool nothing.
    return ceil_mode && (n - 1) * stride >= size + padding ? n - 1 : n;
  };
  return {x[0], extent("H", x[1], w.kernel.h, w.stride.h, w.padding.h, w.dilation.h),
          extent("W", x[2], w.kernel.w, w.stride.w, w.padding.w, w.dilation.w), channels};
}

Window pool2d_window(const Pool2dOptions& options, const char* op) {
  const Window w = check_window(op, {options.kernel, options.stride == 0 ? options.kernel : options.stride,
                                     options.padding, options.dilation});
  if (2 * w.padding.h > w.kernel.h || 2 * w.padding.w > w.kernel.w)
    throw ValueError(fmt::format("{}: expected a padding of at most half the kernel, got {} for a kernel of {}", op,
                                 to_string(w.padding), to_string(w.kernel)));
  return w;
}

Shape pool2d_shape(const Shape& x, const Pool2dOptions& options, const char* op) {
  if (x.rank() != 4) throw ShapeError(fmt::format("{}: expected x[N, H, W, C], got x{}", op, to_string(x)));
  return window_shape(op, x, pool2d_window(options, op), x[3], options.ceil_mode);
}

// y = the largest of each window.  dx takes dy where that value was.
Tensor max_pool2d(const Tensor& x, const Pool2dOptions& options) {
  check_floating("max_pool2d", {"x", x});
  Tensor y = empty(pool2d_shape(x.shape(), options, "max_pool2d"), {x.dtype(), x.device()});
  if (x.dim(2) > 0 && x.dim(1) > INT32_MAX / x.dim(2))  // positions are int32
    throw ShapeError(fmt::format("max_pool2d: expected images of fewer than 2^31 pixels, got {}", describe("x", x)));
  Tensor index = empty(y.shape(), {Dtype::int32, x.device()});
  launch(MaxPool{x, y, index, pool2d_window(options, "max_pool2d")});
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
  const Window window = pool2d_window(options, "avg_pool2d");
  if (window.dilation != 1)
    throw ValueError(fmt::format("avg_pool2d: expected dilation 1, got {}", to_string(window.dilation)));
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
