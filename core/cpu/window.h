// Where a window that slides over [N, H, W, C] images touches them: for convolution and pooling.
#pragma once

#include "tandem/core/cpu/kernel.h"

namespace tandem::TANDEM_CPU_PATH {

// Which of `kernel` places along an axis, origin + k * dilation, lie inside [0, extent): k in [begin, end).
inline Range inside(int64_t origin, int64_t dilation, int64_t kernel, int64_t extent) {
  if (dilation == 1) return {max(0, -origin), min(kernel, extent - origin)};  // most are: spares the divisions
  const int64_t begin = origin < 0 ? (-origin + dilation - 1) / dilation : 0;
  const int64_t end = origin < extent ? (extent - origin + dilation - 1) / dilation : 0;
  return {begin, min(kernel, end)};
}

struct Geometry {
  Window window;
  int64_t h, w, c, out_h, out_w, out_c;

  Geometry(const Shape& x, const Shape& y, const Window& window_)
      : window(window_), h(x[1]), w(x[2]), c(x[3]), out_h(y[1]), out_w(y[2]), out_c(y[3]) {}
  int64_t image() const { return h * w * c; }
  int64_t pixels() const { return out_h * out_w; }

  // The window's first place at output row oy or column ox, and which of its places lie inside the image.
  int64_t top(int64_t oy) const { return oy * window.stride.h - window.padding.h; }
  int64_t left(int64_t ox) const { return ox * window.stride.w - window.padding.w; }
  Range rows(int64_t oy) const { return inside(top(oy), window.dilation.h, window.kernel.h, h); }
  Range columns(int64_t ox) const { return inside(left(ox), window.dilation.w, window.kernel.w, w); }
};

}  // namespace tandem::TANDEM_CPU_PATH
