// Matrix products by OpenBLAS, pinned to one thread: ours run over tiles instead. Row-major, float32 and float64.
// Loading this library may change OpenBLAS's choice of kernels for the whole process: where it took a modern CPU for a
// Prescott, it is told of Haswell or SkylakeX (the environment is set and unset for that). Not when the user has set
// OPENBLAS_CORETYPE.
#pragma once

#include <cstdint>

namespace tandem {

// c[m, n] = op(a) op(b), added to c when `accumulate`. op(a) is m x k, op(b) k x n; `ld*` is the distance
// between the rows of a matrix as stored. Runs on the calling thread.
template <class T>
struct Gemm {
  int64_t m, n, k;
  const T* a;
  int64_t lda;
  bool transpose_a;
  const T* b;
  int64_t ldb;
  bool transpose_b;
  T* c;
  int64_t ldc;
  bool accumulate = false;
};
void gemm(const Gemm<float>& g);
void gemm(const Gemm<double>& g);

}  // namespace tandem
