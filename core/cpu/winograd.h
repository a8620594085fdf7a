// Winograd's convolution F(2x2, 3x3) with stride 1 (Lavin and Gray 2016): of each 4 x 4 pixels of x and each 3 x 3
// weights 16 transformed values are multiplied, instead of 36, for 2 x 2 pixels of y. Its rounding errors are a few
// times those of the direct sums.
//
// Windows at the end of a y of odd extent look one pixel further: x must have it, whatever it holds.
#pragma once

#include "tandem/core/cpu/conv_direct.h"

namespace tandem::TANDEM_BACKEND {

// Packed: blocks of output channels as conv_direct.h has them, each [16][in][its width], of `weight(o, ky, kx, c)`.
template <class F>
void pack_winograd(int64_t in, int64_t out, float* packed, const F& weight);

// y = the convolution, + bias[o] unless it is null. `memory` holds winograd_floats(in).
int64_t winograd_floats(int64_t in);
void winograd(const Sliding& s, const float* x, const float* packed, const float* bias, float* y, float* memory);

// dw[o, ky, kx, c] = (add ? dw : 0) + the sum over all pixels. `memory` holds winograd_dw_floats.
int64_t winograd_dw_floats(const Sliding& s);
void winograd_dw(const Sliding& s, const float* x, const float* dy, bool add, float* dw, float* memory);

// 4 weights along one axis from 3: G g.
struct Four {
  Vec v[4];
};
[[gnu::always_inline]] inline Four widen(Vec a, Vec b, Vec c) {
  const Vec half = splat(0.5f), sum = (a + c) * half, middle = b * half;
  return {{a, sum + middle, sum - middle, c}};
}

template <class F>
void pack_winograd(int64_t in, int64_t out, float* packed, const F& weight) {
  for (int64_t o = 0, width; o < out; o += width, packed += 16 * in * width) {
    width = block_width(out - o);
    for (int64_t c = 0; c < in; ++c) {
      for (int64_t v = 0; v < width; v += kLanes) {
        Four lines[3];
        for (int64_t ky = 0; ky < 3; ++ky) {
          Vec w[3] = {};
          const int64_t lanes = min(kLanes, out - o - v);
          for (int64_t kx = 0; kx < 3; ++kx) {
            for (int64_t i = 0; i < lanes; ++i) w[kx][i] = weight(o + v + i, ky, kx, c);
          }
          lines[ky] = widen(w[0], w[1], w[2]);
        }
        for (int j = 0; j < 4; ++j) {
          const Four column = widen(lines[0].v[j], lines[1].v[j], lines[2].v[j]);
          for (int i = 0; i < 4; ++i) store(packed + ((i * 4 + j) * in + c) * width + v, column.v[i]);
        }
      }
    }
  }
}

}  // namespace tandem::TANDEM_BACKEND
