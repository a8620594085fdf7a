// Index arithmetic on the device: 32 bits, and no division.
#pragma once

#include "tandem/core/error.h"
#include "tandem/cuda/block.h"

namespace tandem::cuda {

// Divides i in [0, 2^31) by a number that the host knows, in [1, 2^31]: with 2^s the power of 2 from d up,
// i / d = (i + floor(i m / 2^32)) / 2^s for m = floor(2^32 (2^s - d) / d) + 1 (Granlund and Montgomery 1994,
// figure 4.1).
struct Divider {
  int divisor = 1;
  uint32_t magic = 1;
  int shift = 0;

  Divider() = default;
  explicit Divider(int64_t d) : divisor(static_cast<int>(d)) {
    while ((int64_t{1} << shift) < d) ++shift;
    magic = static_cast<uint32_t>((((int64_t{1} << shift) - d) << 32) / d + 1);
  }
  TANDEM_HD int quotient(int i) const {
    const uint32_t n = static_cast<uint32_t>(i);
    return static_cast<int>((n + static_cast<uint32_t>((uint64_t{n} * magic) >> 32)) >> shift);
  }
  // i = i / divisor; returns the remainder.
  TANDEM_HD int take(int& i) const {
    const int whole = i;
    i = quotient(whole);
    return whole - i * divisor;
  }
};

// f(first, count) for pieces of n images, each of fewer than 2^31 elements. `image`: the most elements of one.
template <class F>
void for_images(int64_t n, int64_t image, const F& f) {
  constexpr int64_t most = (int64_t{1} << 31) - 4096;  // tiles and blocks reach a little beyond the last
  if (image > most) throw DeviceError("cuda: convolution and pooling expect images of fewer than 2^31 elements");
  const int64_t at_once = most / max(1, image);
  for (int64_t first = 0; first < n; first += at_once) f(first, min(at_once, n - first));
}

}  // namespace tandem::cuda
