// Which algorithm a convolution takes on the CPU, from weights and window alone, and how large its packed weights are:
// for the kernels, and for whoever gives ConvPack its memory.
#pragma once

#include "tandem/core/kernels.h"

namespace tandem {

// im2col: everything that the other two do not take. It has no packed weights.
enum class ConvAlgorithm : uint8_t { im2col, direct, winograd };

// `w` is [O, kh, kw, C/groups].
[[gnu::always_inline]] inline ConvAlgorithm conv_algorithm(Dtype dtype, const Shape& w, const Window& window,
                                                           int64_t groups) {
  const Size2 one = 1, kernel = window.kernel;
  if (dtype != Dtype::float32 || groups != 1 || !(window.dilation == one) || kernel.h > 7 || kernel.w > 7)
    return ConvAlgorithm::im2col;
  if (kernel == Size2(3) && window.stride == one && w[0] >= 16 && w[3] >= 16) return ConvAlgorithm::winograd;
  return ConvAlgorithm::direct;
}

// The floats of ConvPack's `packed`: enough on any CPU, 0 if the convolution has none.
[[gnu::always_inline]] inline int64_t conv_packed_size(Dtype dtype, const Shape& w, const Window& window,
                                                       int64_t groups, bool turned) {
  const ConvAlgorithm algorithm = conv_algorithm(dtype, w, window, groups);
  if (algorithm == ConvAlgorithm::im2col) return 0;
  const int64_t taps = algorithm == ConvAlgorithm::winograd ? 16 : w[1] * w[2];
  const int64_t in = turned ? w[0] : w[3], out = turned ? w[3] : w[0];
  return taps * in * ((out + 15) / 16 * 16);  // whole vectors of channels
}

}  // namespace tandem
