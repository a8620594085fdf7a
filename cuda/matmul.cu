#include "tandem/cuda/blas.h"
#include "tandem/cuda/block.h"

namespace tandem::cuda {
namespace {

// Each row of y[n, width] = b.
template <class T>
struct FillRows {
  const T* b;
  T* y;
  int64_t width;
  TANDEM_DEVICE void operator()(int64_t i) const { y[i] = b[i % width]; }
};

}  // namespace
}  // namespace tandem::cuda

namespace tandem {
using namespace cuda;

void run(Cuda, const MatMul& k) {
  const int64_t m = k.y.dims[0], n = k.y.dims[1], inner = k.a.dims[k.transpose_a ? 0 : 1];
  floating(k.y.dtype, [&]<class T>(T) {
    gemm(k.y.device,
         Gemm<T>{m, n, inner, k.a.as<T>(), k.a.dims[1], k.transpose_a, k.b.as<T>(), k.b.dims[1], k.transpose_b,
                 k.y.as<T>(), n},
         k.math);
  });
}

void run(Cuda, const Linear& k) {
  const int64_t n = k.x.dims[0], in = k.w.dims[1], out = k.w.dims[0];
  floating(k.y.dtype, [&]<class T>(T) {
    if (k.b) for_elements(k.y.device, n * out, FillRows<T>{k.b.as<T>(), k.y.as<T>(), out});
    gemm(k.y.device, Gemm<T>{n, out, in, k.x.as<T>(), in, false, k.w.as<T>(), in, true, k.y.as<T>(), out, bool(k.b)},
         k.math);
  });
}

void run(Cuda, const LinearDx& k) {
  const int64_t n = k.dy.dims[0], in = k.w.dims[1], out = k.w.dims[0];
  floating(k.dx.dtype, [&]<class T>(T) {
    gemm(k.dx.device, Gemm<T>{n, in, out, k.dy.as<T>(), out, false, k.w.as<T>(), in, false, k.dx.as<T>(), in}, k.math);
  });
}

void run(Cuda, const LinearDw& k) {
  const int64_t n = k.x.dims[0], in = k.x.dims[1], out = k.dy.dims[1];
  floating(k.dw.dtype, [&]<class T>(T) {
    gemm(k.dw.device, Gemm<T>{out, in, n, k.dy.as<T>(), out, true, k.x.as<T>(), in, false, k.dw.as<T>(), in, k.dw.add},
         k.math);
  });
}

}  // namespace tandem
