// Direct convolution in float32, channels last: a window's line, all its places and channels, is one run of
// neighbouring values, so every convolution is a sum of a few small matrix products on the image as it lies.
#pragma once

#include "tandem/core/cpu/simd.h"

namespace tandem::TANDEM_BACKEND {

// y[n, i, j, o] reads the lines l of its window at x[n * x_image + i * x_row + j * x_pixel + l * x_line ..], `run`
// values each, and lies at y[n * y_image + i * y_row + j * y_pixel + o].
struct Sliding {
  int64_t images, rows, columns, channels;  // of y
  int64_t lines, run;
  int64_t x_image, x_row, x_pixel, x_line;
  int64_t y_image, y_row, y_pixel;
};

// Packed weights: the output channels in blocks of two vectors, or one where no more are left, each block
// [lines * run][its width], with zeros for the channels beyond the last.
inline constexpr int64_t kBlock = 2 * kLanes;
[[gnu::always_inline]] inline int64_t packed_floats(int64_t depth, int64_t channels) {
  return depth * ((channels + kLanes - 1) / kLanes * kLanes);
}
[[gnu::always_inline]] inline int64_t block_width(int64_t channels_left) {
  return channels_left > kLanes ? kBlock : kLanes;
}
// weights(k)[o * step] for k < depth; returns where the packed weights end.
template <class F>
float* pack_blocks(int64_t depth, int64_t channels, int64_t step, float* packed, const F& weights) {
  for (int64_t o = 0, width; o < channels; o += width, packed += depth * width) {
    width = block_width(channels - o);
    for (int64_t k = 0; k < depth; ++k) {
      const float* from = weights(k) + o * step;
      for (int64_t i = 0; i < width; ++i) packed[k * width + i] = o + i < channels ? from[i * step] : 0;
    }
  }
  return packed;
}

// y = the convolution, + bias[o] unless it is null.
void convolve(Sliding s, const float* x, const float* packed, const float* bias, float* y);

// dw[o, l, t] = (add ? dw : 0) + sum over n, i, j of dy[n, i, j, o] * x's value t of line l. y_pixel is the channels.
void convolve_dw(Sliding s, const float* x, const float* dy, bool add, float* dw);

}  // namespace tandem::TANDEM_BACKEND
