// Where a window that slides over [N, H, W, C] images touches them: for convolution and pooling.
#pragma once

#include "tandem/core/backend.h"

namespace tandem::TANDEM_BACKEND {

// Which of `kernel` places along an axis, origin + k * dilation, lie inside [0, extent): k in [begin, end).
TANDEM_HD Range inside(int64_t origin, int64_t dilation, int64_t kernel, int64_t extent) {
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
  TANDEM_HD int64_t image() const { return h * w * c; }
  TANDEM_HD int64_t pixels() const { return out_h * out_w; }

  // The window's first place at output row oy or column ox, and which of its places lie inside the image.
  TANDEM_HD int64_t top(int64_t oy) const { return oy * window.stride.h - window.padding.h; }
  TANDEM_HD int64_t left(int64_t ox) const { return ox * window.stride.w - window.padding.w; }
  TANDEM_HD Range rows(int64_t oy) const { return inside(top(oy), window.dilation.h, window.kernel.h, h); }
  TANDEM_HD Range columns(int64_t ox) const { return inside(left(ox), window.dilation.w, window.kernel.w, w); }

  // How many values the mean of window (oy, ox) is over, at least 1. With `padded`, the padding counts as well, but not
  // what a window rounded up by ceil_mode has beyond it.
  TANDEM_HD int64_t count(int64_t oy, int64_t ox, bool padded) const {
    if (!padded) return max(1, rows(oy).size() * columns(ox).size());
    return inside(oy * window.stride.h, window.dilation.h, window.kernel.h, h + 2 * window.padding.h).size() *
           inside(ox * window.stride.w, window.dilation.w, window.kernel.w, w + 2 * window.padding.w).size();
  }
};

// The input's gradient: pixels of dx that lie `stride` apart all see the same places of the kernel, so that they are a
// convolution of dy with stride 1 and those places, turned. Along one axis of dx, phase f: pixels f + q * stride,
// q < count, see the pixels begin + q + j * hop, j < taps, of dy through the kernel's places last - j * step.
struct Phase {
  int64_t first, stride, count, begin, hop, taps, last, step = 1;

  Phase(int64_t f, int64_t kernel, int64_t stride_, int64_t padding, int64_t dilation, int64_t extent)
      : first(f), stride(stride_) {
    while (step * dilation % stride != 0) ++step;
    hop = step * dilation / stride;
    int64_t place = 0;
    while (place < step && (f + padding - place * dilation) % stride != 0) ++place;
    if (place == step) place = kernel;  // the dilation's steps pass this phase by
    count = f < extent ? (extent - 1 - f) / stride + 1 : 0;
    taps = place < kernel ? (kernel - 1 - place) / step + 1 : 0;
    last = place + (taps - 1) * step;
    begin = (f + padding - place * dilation) / stride - (taps - 1) * hop;
  }
};

// f(phase along H, phase along W) for all phases of an image of h x w pixels.
template <class F>
void for_phases(const Window& window, int64_t h, int64_t w, const F& f) {
  for (int64_t i = 0; i < window.stride.h; ++i) {
    for (int64_t j = 0; j < window.stride.w; ++j) {
      f(Phase(i, window.kernel.h, window.stride.h, window.padding.h, window.dilation.h, h),
        Phase(j, window.kernel.w, window.stride.w, window.padding.w, window.dilation.w, w));
    }
  }
}

}  // namespace tandem::TANDEM_BACKEND
