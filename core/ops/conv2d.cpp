#include "tandem/core/cuda.h"
#include "tandem/core/ops/check.h"

namespace tandem {
Window conv2d_window(Size2 kernel, const Conv2dOptions& options, const char* op) {
  return check_window(op, {kernel, options.stride, options.padding, options.dilation});
}

Shape conv2d_shape(const Shape& x, const Shape& weight, const Conv2dOptions& options, const char* op) {
  if (x.rank() != 4 || weight.rank() != 4)
    throw ShapeError(fmt::format("{}: expected x[N, H, W, C] and weight[O, kh, kw, C/groups], got x{} and weight{}", op,
                                 to_string(x), to_string(weight)));
  const int64_t groups = options.groups;
  if (groups < 1 || weight[0] % groups != 0 || x[3] % groups != 0)
    throw ValueError(fmt::format("{}: expected groups >= 1 that divide C and O, got {} groups for C = {}, O = {}", op,
                                 groups, x[3], weight[0]));
  if (x[3] != weight[3] * groups)
    throw ShapeError(fmt::format("{}: expected x[N, H, W, {}] for weight{} and {} groups, got x{} (C: {} vs {})", op,
                                 weight[3] * groups, to_string(weight), groups, to_string(x), weight[3] * groups,
                                 x[3]));
  return window_shape(op, x, conv2d_window({weight[1], weight[2]}, options, op), weight[0]);
}

// y[n, i, j, o] = sum over window and channels of x w, + b[o]; dx, dw its adjoints, db = sum of dy over n, i, j.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias, const Conv2dOptions& options) {
  check_alike("conv2d", {{"x", x}, {"weight", weight}, {"bias", bias}});
  const Shape shape = conv2d_shape(x.shape(), weight.shape(), options, "conv2d");
  if (bias.defined() && bias.shape() != Shape{weight.dim(0)})
    throw ShapeError(fmt::format("conv2d: expected bias[{}] for {}, got {}", weight.dim(0), describe("weight", weight),
                                 describe("bias", bias)));
  const Window window = conv2d_window({weight.dim(1), weight.dim(2)}, options, "conv2d");
  const int64_t groups = options.groups;
  Tensor y = empty(shape, {x.dtype(), x.device()});
  launch(Conv{x, weight, bias, y, window, groups, cuda::math()});
  return record(
      "conv2d", y, {x, weight, bias},
      [x = save(x), w = save(weight), window, groups, need_x = x.requires_grad(), need_w = weight.requires_grad(),
       need_b = bias.defined() && bias.requires_grad()](const Tensor& dy) -> Grads {
        Grads grads(3);
        if (need_x) launch(ConvDx{dy, w, grads[0] = empty_like(x), window, groups, cuda::math()});
        if (need_w)
          grads[1] = sum_over_rows(x, w.checked().shape(), dy.dtype(), dy.dtype(), [&](Tensor& dw) {
            launch(ConvDw{dy, x, dw, window, groups, cuda::math()});
          });
        if (need_b) grads[2] = bias_grad(dy);
        return grads;
      });
}

}  // namespace tandem
