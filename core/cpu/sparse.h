// A linear layer of float32 on an x that is mostly zero. Every sum is the chain of FMAs in order of k that gemm.h
// promises, without terms whose x is 0: they leave a finite sum as it is, so the bytes are those of the dense product.
#pragma once

#include "tandem/core/cpu/kernel.h"

namespace tandem::TANDEM_BACKEND {

void sparse_linear(const Linear& k);
void sparse_linear_dw(const LinearDw& k);

}  // namespace tandem::TANDEM_BACKEND
