#include "tandem/core/ops/check.h"

namespace tandem {
namespace {

Window window_of(const Shape& weight, const Conv2dOptions& options) {
  const std::pair stride = options.strides.value_or(std::pair(options.stride, options.stride));
  const std::pair padding = options.paddings.value_or(std::pair(options.padding, options.padding));
  const std::pair dilation = options.dilations.value_or(std::pair(options.dilation, options.dilation));
  return {weight[1],      weight[2],      stride.first,   stride.second,
          padding.first,  padding.second, dilation.first, dilation.second};
}

// The extent of the output along one axis; throws if the window does not fit.
int64_t output_extent(const char* axis, int64_t size, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
  if (kernel < 1 || stride < 1 || padding < 0 || dilation < 1)
    throw ValueError(fmt::format("conv2d: expected kernel, stride and dilation >= 1 and padding >= 0, got kernel {}, "
                                 "stride {}, dilation {}, padding {} along {}",
                                 kernel, stride, dilation, padding, axis));
  const int64_t reach = dilation * (kernel - 1) + 1;
  if (size + 2 * padding < reach)
    throw ShapeError(fmt::format("conv2d: expected an input of at least {} along {} for a window of {} with padding {}, "
                                 "got {}",
                                 reach - 2 * padding, axis, reach, padding, size));
  return (size + 2 * padding - reach) / stride + 1;
}

}  // namespace

Shape conv2d_shape(const Shape& x, const Shape& weight, const Conv2dOptions& options) {
  if (x.rank() != 4 || weight.rank() != 4)
    throw ShapeError(fmt::format("conv2d: expected x[N, H, W, C] and weight[O, kh, kw, C/groups], got x{} and weight{}",
                                 to_string(x), to_string(weight)));
  const int64_t groups = options.groups;
  if (groups < 1 || weight[0] % groups != 0 || x[3] % groups != 0)
    throw ValueError(fmt::format("conv2d: expected groups >= 1 that divide C and O, got {} groups for C = {}, O = {}",
                                 groups, x[3], weight[0]));
  if (x[3] != weight[3] * groups)
    throw ShapeError(fmt::format("conv2d: expected x[N, H, W, {}] for weight{} and {} groups, got x{} (C: {} vs {})",
                                 weight[3] * groups, to_string(weight), groups, to_string(x), weight[3] * groups, x[3]));
  const Window w = window_of(weight, options);
  return {x[0], output_extent("H", x[1], w.kernel_h, w.stride_h, w.padding_h, w.dilation_h),
          output_extent("W", x[2], w.kernel_w, w.stride_w, w.padding_w, w.dilation_w), weight[0]};
}

// y[n, i, j, o] = sum over window and channels of x w, + b[o]; dx, dw its adjoints, db = sum of dy over n, i, j.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options) {
  check_alike("conv2d", {{"x", x}, {"weight", weight}, {"bias", bias}});
  const Shape shape = conv2d_shape(x.shape(), weight.shape(), options);
  if (bias.defined() && bias.shape() != Shape{weight.dim(0)})
    throw ShapeError(fmt::format("conv2d: expected bias[{}] for {}, got {}", weight.dim(0), describe("weight", weight),
                                 describe("bias", bias)));
  const Window window = window_of(weight.shape(), options);
  const int64_t groups = options.groups;
  Tensor y = empty(shape, {x.dtype(), x.device()});
  launch(Conv{x, weight, bias, y, window, groups});
  return record("conv2d", y, {x, weight, bias},
                [x = save(x), w = save(weight), window, groups, need_x = x.requires_grad(),
                 need_w = weight.requires_grad(),
                 need_b = bias.defined() && bias.requires_grad()](const Tensor& dy) -> Grads {
                  Grads grads(3);
                  if (need_x) launch(ConvDx{dy, w, grads[0] = empty_like(x), window, groups});
                  if (need_w)
                    grads[1] = sum_over_rows(x, w.checked().shape(), dy.dtype(), dy.dtype(),
                                             [&](Tensor& dw) { launch(ConvDw{dy, x, dw, window, groups}); });
                  if (need_b) grads[2] = bias_grad(dy);
                  return grads;
                });
}

}  // namespace tandem
