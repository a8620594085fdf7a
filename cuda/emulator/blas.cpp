// Matrix products of the emulated GPU: OpenBLAS, on factors rounded as the tensor cores would.
#include "tandem/cuda/blas.h"

#include <vector>

#include "tandem/cuda/block.h"

namespace tandem::cuda {
namespace {

template <class T>
std::vector<T> rounded(const T* x, int64_t rows, int64_t columns, int64_t stride, Math math) {
  std::vector<T> y(static_cast<size_t>(rows * stride));
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < columns; ++j) {
      T& to = y[static_cast<size_t>(i * stride + j)];
      to = x[i * stride + j];
      if constexpr (sizeof(T) == 4) {
        if (math == Math::tf32) to = scalar::round_to_tf32(to);
        if (math == Math::bf16) to = scalar::round_to_bf16(to);
      }
    }
  }
  return y;
}

}  // namespace

template <class T>
void gemm(Device device, const Gemm<T>& asked, Math math) {
  Gemm<T> g = asked;
  ::emulator::translate(&g, sizeof(g));
  ::emulator::queue(stream(device), [=] {
    const std::vector<T> a = rounded(g.a, g.transpose_a ? g.k : g.m, g.transpose_a ? g.m : g.k, g.lda, math);
    const std::vector<T> b = rounded(g.b, g.transpose_b ? g.n : g.k, g.transpose_b ? g.k : g.n, g.ldb, math);
    Gemm<T> h = g;
    h.a = a.data();
    h.b = b.data();
    tandem::gemm(h);
  });
}
template void gemm(Device, const Gemm<float>&, Math);
template void gemm(Device, const Gemm<double>&, Math);

}  // namespace tandem::cuda
