// Matrix products on a GPU, by cuBLAS.
#pragma once

#include "tandem/core/blas.h"
#include "tandem/core/kernels.h"

namespace tandem::cuda {

// Queues g in this thread's stream. `math` is for float32.
template <class T>
void gemm(Device device, const Gemm<T>& g, Math math);

}  // namespace tandem::cuda
