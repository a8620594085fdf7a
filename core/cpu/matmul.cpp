#include "tandem/core/blas.h"
#include "tandem/core/cpu/gemm.h"
#include "tandem/core/cpu/kernel.h"
#include "tandem/core/cpu/sparse.h"

namespace tandem::TANDEM_BACKEND {
namespace {

// g, plus bias[n] in every row unless it is null.
void product(const Gemm<float>& g, const float* bias = nullptr) {
  const Matrix a{g.a, g.transpose_a ? 1 : g.lda, g.transpose_a ? g.lda : 1};
  const Matrix b{g.b, g.transpose_b ? 1 : g.ldb, g.transpose_b ? g.ldb : 1};
  multiply({g.m, g.n, g.k, a, b, g.c, bias, g.accumulate});
}

// With fewer outputs, listing what is not zero costs more than it saves.
constexpr int64_t kLeastSparse = 32;

// OpenBLAS gives other bits for other shapes, so the output is cut by its shape alone, never by the threads.
constexpr int64_t kTileRows = 256, kTileColumns = 256;

void product(const Gemm<double>& g, const double* bias = nullptr) {
  const int64_t across = (g.n + kTileColumns - 1) / kTileColumns;
  const int64_t down = (g.m + kTileRows - 1) / kTileRows;
  parallel_for(across * down, [&](int64_t tile) {
    const int64_t row = tile / across * kTileRows, column = tile % across * kTileColumns;
    Gemm<double> part = g;
    part.m = min(kTileRows, g.m - row);
    part.n = min(kTileColumns, g.n - column);
    part.a += g.transpose_a ? row : row * g.lda;
    part.b += g.transpose_b ? column * g.ldb : column;
    part.c += row * g.ldc + column;
    gemm(part);
    for (int64_t i = 0; bias && i < part.m; ++i) {
      TANDEM_INDEPENDENT
      for (int64_t j = 0; j < part.n; ++j) part.c[i * g.ldc + j] += bias[column + j];
    }
  });
}

}  // namespace

void run(const MatMul& k) {
  const int64_t m = k.y.dims[0], n = k.y.dims[1], inner = k.a.dims[k.transpose_a ? 0 : 1];
  floating(k.y.dtype, [&]<class T>(T) {
    product(Gemm<T>{m, n, inner, k.a.as<T>(), k.a.dims[1], k.transpose_a, k.b.as<T>(), k.b.dims[1], k.transpose_b,
                    k.y.as<T>(), n});
  });
}

void run(const Linear& k) {
  const int64_t n = k.x.dims[0], in = k.w.dims[1], out = k.w.dims[0];
  if (k.sparse && k.y.dtype == Dtype::float32 && out >= kLeastSparse) return sparse_linear(k);
  floating(k.y.dtype, [&]<class T>(T) {
    product(Gemm<T>{n, out, in, k.x.as<T>(), in, false, k.w.as<T>(), in, true, k.y.as<T>(), out}, k.b.as<T>());
  });
}

void run(const LinearDx& k) {
  const int64_t n = k.dy.dims[0], in = k.w.dims[1], out = k.w.dims[0];
  floating(k.dx.dtype, [&]<class T>(T) {
    product(Gemm<T>{n, in, out, k.dy.as<T>(), out, false, k.w.as<T>(), in, false, k.dx.as<T>(), in});
  });
}

void run(const LinearDw& k) {
  const int64_t in = k.x.dims[1], out = k.dy.dims[1];
  if (k.sparse && k.dw.dtype == Dtype::float32 && out >= kLeastSparse) return sparse_linear_dw(k);
  const Chunking cut = chunking(k.dy.dims);
  floating(k.dw.dtype, [&]<class T>(T) {
    for (int64_t lane = 0; lane < cut.lanes(); ++lane) {
      const int64_t begin = cut.lane_begin(lane), end = cut.lane_begin(lane + 1);
      product(Gemm<T>{out, in, end - begin, k.dy.as<T>() + begin * out, out, true, k.x.as<T>() + begin * in, in, false,
                      k.dw.as<T>() + lane * out * in, in, k.dw.add});
    }
  });
}

}  // namespace tandem::TANDEM_BACKEND
