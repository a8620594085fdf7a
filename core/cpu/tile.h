// The micro-kernel of every float32 matrix product and convolution: a tile of kRows x kVectors vectors of sums that
// stays in registers while products are added to it. 24 sums hide the latency of an FMA and leave room for the
// operands: 12 x 2, 8 x 3 and 6 x 4 reach 97 to 99 % of the FMA peak on AVX-512. Each sum is one chain in order of k,
// so that a row's result does not depend on the rows beside it.
#pragma once

#include "tandem/core/cpu/simd.h"

namespace tandem::TANDEM_BACKEND {

// Its rows may come in lines of kLine: row r is row r % kLine of line r / kLine.
template <int kRows, int kVectors, int kLine = kRows>
struct Tile {
  Vec sum[kRows][kVectors];

  [[gnu::always_inline]] void zero() {
    TANDEM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      TANDEM_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[r][v] = Vec{};
    }
  }
  // The place of row r where rows lie `row` and lines `line` apart.
  [[gnu::always_inline]] static int64_t place(int r, int64_t row, int64_t line) {
    return r / kLine * line + r % kLine * row;
  }
  // sum[r] += a[place(r, a_row, a_line) + k * a_step] * b[k * b_step ..] for k in [0, depth)
  [[gnu::always_inline]] void add(const float* a, int64_t a_row, int64_t a_step, const float* b, int64_t b_step,
                                  int64_t depth, int64_t a_line = 0) {
    for (int64_t k = 0; k < depth; ++k, a += a_step, b += b_step) {
      Vec right[kVectors];
      TANDEM_UNROLL
      for (int v = 0; v < kVectors; ++v) right[v] = load(b + v * kLanes);
      TANDEM_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const Vec left = splat(a[place(r, a_row, a_line)]);
        TANDEM_UNROLL
        for (int v = 0; v < kVectors; ++v) sum[r][v] = fma(left, right[v], sum[r][v]);
      }
    }
  }
  // sum[r] += row, kVectors vectors
  [[gnu::always_inline]] void add_row(const float* row) {
    TANDEM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      TANDEM_UNROLL
      for (int v = 0; v < kVectors; ++v) sum[r][v] += load(row + v * kLanes);
    }
  }
  // Of a row's last vector only the first `last` lanes are read and written.
  [[gnu::always_inline]] void load_from(const float* c, int64_t c_row, int64_t last = kLanes, int64_t c_line = 0) {
    TANDEM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      TANDEM_UNROLL
      for (int v = 0; v + 1 < kVectors; ++v) sum[r][v] = load(c + place(r, c_row, c_line) + v * kLanes);
      sum[r][kVectors - 1] = load_some(c + place(r, c_row, c_line) + (kVectors - 1) * kLanes, last);
    }
  }
  [[gnu::always_inline]] void store_to(float* c, int64_t c_row, int64_t last = kLanes, int64_t c_line = 0) const {
    TANDEM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      TANDEM_UNROLL
      for (int v = 0; v + 1 < kVectors; ++v) store(c + place(r, c_row, c_line) + v * kLanes, sum[r][v]);
      store_some(c + place(r, c_row, c_line) + (kVectors - 1) * kLanes, sum[r][kVectors - 1], last);
    }
  }
};

// f(begin, count) for the pieces of [0, n), as equal as they can be and at most `most` long.
template <class F>
[[gnu::always_inline]] inline void for_pieces(int64_t n, int64_t most, const F& f) {
  const int64_t pieces = (n + most - 1) / most;
  for (int64_t i = 0, begin = 0; i < pieces; ++i) {
    const int64_t end = (i + 1) * n / pieces;
    f(begin, end - begin);
    begin = end;
  }
}

// f(Constant<n>{}) for n in [1, kMost].
template <int kMost, class F>
[[gnu::always_inline]] inline void with_count(int64_t n, const F& f) {
  if constexpr (kMost > 1) {
    if (n < kMost) return with_count<kMost - 1>(n, f);
  }
  f(Constant<kMost>{});
}

}  // namespace tandem::TANDEM_BACKEND
