// What the kernels of every backend start from: C++ types of dtypes, and index arithmetic. Included once per copy of
// the kernels, into a namespace of its own (TANDEM_BACKEND: x86_64, avx2, avx512 or cuda), so that no copy links to
// what was compiled for another. For the same reason: no std containers, algorithms or functions in here.
#pragma once

#include "tandem/core/kernels.h"
#include "tandem/core/scalar_math.h"

namespace tandem::TANDEM_BACKEND {

// f(T{}) with the C++ type of a floating dtype.
template <class F>
void floating(Dtype dtype, const F& f) {
  dtype == Dtype::float32 ? f(float{}) : f(double{});
}

// f(T{}) with the C++ type of any dtype.
template <class F>
void any_type(Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::float32:
      return f(float{});
    case Dtype::float64:
      return f(double{});
    case Dtype::int32:
      return f(int32_t{});
    case Dtype::int64:
      return f(int64_t{});
    case Dtype::uint8:
      return f(uint8_t{});
  }
}

// f(T{}) with an integer as large as an element: moving elements needs no more than their size.
template <class F>
void element_size(Dtype dtype, const F& f) {
  switch (size_of(dtype)) {
    case 1:
      return f(uint8_t{});
    case 4:
      return f(uint32_t{});
    case 8:
      return f(uint64_t{});
  }
}

template <auto V>
struct Constant {};

// f(Constant<op>{}) for an op of an enumeration that ends with `last`: the loops in f are compiled for each op.
template <auto last, class F>
void for_op(decltype(last) op, const F& f) {
  if constexpr (static_cast<int>(last) > 0) {
    if (op != last) return for_op<static_cast<decltype(last)>(static_cast<int>(last) - 1)>(op, f);
  }
  f(Constant<last>{});
}

// f(Constant<act>{}) for the activations that may follow a batch norm.
template <class F>
void for_act(UnaryOp act, const F& f) {
  if (act == UnaryOp::relu) return f(Constant<UnaryOp::relu>{});
  if (act == UnaryOp::sigmoid) return f(Constant<UnaryOp::sigmoid>{});
  f(Constant<UnaryOp::tanh>{});
}

TANDEM_HD int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
TANDEM_HD int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
TANDEM_HD int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Range {
  int64_t begin, end;
  TANDEM_HD int64_t size() const { return max(0, end - begin); }
};
// The i-th of so many parts, nearly equal.
TANDEM_HD Range part(Range all, int64_t i, int64_t parts) {
  return {all.begin + all.size() * i / parts, all.begin + all.size() * (i + 1) / parts};
}

// A tensor seen as [outer, extent, inner] around one axis.
struct AxisView {
  int64_t outer, extent, inner;
};
[[gnu::always_inline]] inline AxisView along(const Shape& dims, int axis) {
  AxisView v{1, dims[axis], 1};
  for (int i = 0; i < axis; ++i) v.outer *= dims[i];
  for (int i = axis + 1; i < dims.rank(); ++i) v.inner *= dims[i];
  return v;
}

// x of a batch norm as [rows, pre, channels, inner]. A pixel is one (row, pre): value i of its channel c is
// x[(pixel * channels + c) * inner + i].
struct Layout {
  int64_t rows, pre, channels, inner;

  Layout(const Shape& x, int axis) : rows(x[0]) {
    const AxisView view = along(x, axis);
    channels = view.extent;
    pre = rows > 0 ? view.outer / rows : 0;
    inner = view.inner;
  }
  TANDEM_HD int64_t pixel() const { return channels * inner; }
  // The mask's element for value i of x: the mask has no channels.
  TANDEM_HD int64_t mask_position(int64_t i) const { return i / pixel() * inner + i % inner; }
};

// Whether float32 carries a channel's constants; where it does not, its batch norm is computed in float64.
TANDEM_HD bool bn_fits_float(double mean, double rstd) {
  return (__builtin_fabs(mean) < 1e30) & (rstd > 1e-12) & (rstd < 1e12);
}
// With so few values in a channel, what is left of their gradient once its mean and slope are taken away may be no
// larger than float32's rounding errors (of two values almost nothing is left): so few are summed, and their gradient
// is computed, in float64.
inline constexpr int64_t kFew = 32;

}  // namespace tandem::TANDEM_BACKEND
