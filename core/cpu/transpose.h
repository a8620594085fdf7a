// Transposing a square of kLanes vectors in registers.
#pragma once

#include <utility>

#include "tandem/core/cpu/simd.h"

namespace tandem::TANDEM_BACKEND {

// Exchanges the two off-diagonal squares of `step` lanes in every square of 2 * step that a and b make.
template <int step, int... lane>
[[gnu::always_inline]] inline void exchange(Vec& a, Vec& b, std::integer_sequence<int, lane...>) {
  const Vec low = __builtin_shufflevector(a, b, (lane & step ? int{kLanes} + lane - step : lane)...);
  b = __builtin_shufflevector(a, b, (lane & step ? int{kLanes} + lane : lane + step)...);
  a = low;
}

// block[i][j] becomes block[j][i].
template <int step = kLanes / 2>
[[gnu::always_inline]] inline void transpose(Vec (&block)[kLanes]) {
  TANDEM_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    if (!(i & step)) exchange<step>(block[i], block[i + step], std::make_integer_sequence<int, kLanes>());
  }
  if constexpr (step > 1) transpose<step / 2>(block);
}

}  // namespace tandem::TANDEM_BACKEND
