// The float32 matrix product. Every element of a result is one chain of FMAs in order of k, however large the product
// is: the bytes of a row depend on that row of `a`, on b and on bias alone, not on how many rows there are, on the tile
// a row falls into or on threads. (On plain x86-64 each step of the chain is rounded twice.)
#pragma once

#include "tandem/core/cpu/simd.h"

namespace tandem::TANDEM_BACKEND {

// Element [i, j] is data[i * row + j * column]: a transposed matrix is the same elements with its steps exchanged.
struct Matrix {
  const float* data;
  int64_t row, column;
};

// y[m, n] = a[m, k] b[k, n] + bias[n].
struct Product {
  int64_t m, n, k;
  Matrix a, b;                  // one step of b is 1
  float* y;                     // row-major
  const float* bias = nullptr;  // may be absent
  bool add = false;             // the chains begin at y's values instead of 0
};
void multiply(const Product& p);

// Columns of b as the micro-kernel reads them, `width` (a multiple of kLanes) to a panel: [panel][k][width] floats.
struct Panels {
  float* data;
  int64_t k, width;

  float* panel(int64_t i) const { return data + i * k * width; }
};
// Fills a panel with the first `columns` <= width columns of b, and with 0 up to a multiple of kLanes.
void pack(const Matrix& b, int64_t columns, const Panels& panels, int64_t panel);

}  // namespace tandem::TANDEM_BACKEND
