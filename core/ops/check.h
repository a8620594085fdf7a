// Checks shared by the ops. Each throws a sentence that starts with the op's name.
#pragma once

#include <fmt/format.h>

#include <functional>
#include <initializer_list>

#include "tandem/core/autograd.h"
#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"
#include "tandem/core/ops.h"

namespace tandem {

struct Named {
  const char* name;
  const Tensor& tensor;
};

inline void check_floating(const char* op, Named x) {
  if (!is_floating(x.tensor.dtype()))
    throw ValueError(fmt::format("{}: expected {} of float32 or float64, got {} of {}; convert it with to()", op,
                                 x.name, describe(x.name, x.tensor), name_of(x.tensor.dtype())));
}

// All floating, of one dtype, on one device. Empty tensors (absent options) are passed over.
inline void check_alike(const char* op, std::initializer_list<Named> all) {
  const Named& first = *all.begin();
  for (const Named& x : all) {
    if (!x.tensor.defined() && &x != &first) continue;
    check_floating(op, x);
    if (x.tensor.dtype() != first.tensor.dtype())
      throw ValueError(fmt::format("{}: expected one dtype, got {} of {} and {} of {}; convert one with to()", op,
                                   describe(first.name, first.tensor), name_of(first.tensor.dtype()),
                                   describe(x.name, x.tensor), name_of(x.tensor.dtype())));
    if (!(x.tensor.device() == first.tensor.device()))
      throw DeviceError(fmt::format("{}: expected one device, got {} on {} and {} on {}; move one with to()", op,
                                    describe(first.name, first.tensor), to_string(first.tensor.device()),
                                    describe(x.name, x.tensor), to_string(x.tensor.device())));
  }
}

inline void check_dtype(const char* op, Named x, Dtype dtype) {
  if (x.tensor.dtype() != dtype)
    throw ValueError(fmt::format("{}: expected {} of {}, got {} of {}; convert it with to()", op, x.name,
                                 name_of(dtype), describe(x.name, x.tensor), name_of(x.tensor.dtype())));
}

// Throws ValueError for the first value of `index` (int32) that is not in [0, n), if there is one; for an index on a
// GPU, whoever next waits for that does.
void check_index(const View& index, int64_t n, Asker asker);

// A mask over x's positions, which may be absent: x's shape without the channel axis.
inline void check_mask(const char* op, const Tensor& x, int channel_axis, const Tensor& mask) {
  if (mask.defined() && mask.shape() != x.shape().without(channel_axis))
    throw ShapeError(fmt::format("{}: expected mask{} for {}, got {}", op, to_string(x.shape().without(channel_axis)),
                                 describe("x", x), describe("mask", mask)));
}

// The gradient of a broadcast operand of this shape: dy summed over the axes along which it was repeated.
Tensor sum_to(const Tensor& dy, const Shape& shape);

// The gradient of a bias: dy summed over all axes but the last.
Tensor bias_grad(const Tensor& dy);

// Throws ValueError unless the window's sizes are within their limits, so that no product of them overflows.
const Window& check_window(const char* op, const Window& window);

// The shape [N, H', W', channels] of what a window makes of x[N, H, W, C]. Throws ShapeError if it does not fit.
Shape window_shape(const char* op, const Shape& x, const Window& window, int64_t channels, bool ceil_mode = false);

// Runs a kernel that sums over the rows of a batch, lane by lane, and adds the lanes up in order. On a GPU there is
// one, of either dtype.
template <class Kernel>
Tensor sum_over_rows(const Tensor& batch, const Shape& shape, Dtype dtype, Dtype lane_dtype, Kernel kernel) {
  const int64_t lanes = chunking(batch.shape(), batch.device()).lanes();
  const bool whole = lanes == 1 && (lane_dtype == dtype || batch.device().kind == Device::Kind::cuda);
  Tensor parts = empty(shape.insert(0, lanes), {whole ? dtype : lane_dtype, batch.device()});
  kernel(parts);
  if (whole) return parts.reshape(shape);
  Tensor total = empty(shape, {dtype, batch.device()});
  launch(Merge{parts, total});
  return total;
}

}  // namespace tandem
