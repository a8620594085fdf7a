#include "tandem/core/blas.h"

#include <cblas.h>
#include <fmt/format.h>

#include <atomic>
#include <climits>
#include <cstdlib>
#include <string>

#include "tandem/core/error.h"
#include "tandem/core/threads.h"

extern "C" {  // in every OpenBLAS that chooses its kernels at run time, but in none of its headers
[[gnu::weak]] void gotoblas_dynamic_quit();
[[gnu::weak]] void gotoblas_dynamic_init();
}

namespace tandem {
namespace {

// An OpenBLAS that is older than the CPU takes it for a Prescott of 2004 and is ten times slower than need be
// (0.3.21 on Sapphire and Emerald Rapids). So it is told of a CPU that it knows: before main, while nobody uses it,
// and not when the user has named one.
[[maybe_unused]] const bool core_is_known = [] {
  const char* name = "OPENBLAS_CORETYPE";
  const char* core = __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw") ? "SkylakeX" : "Haswell";
  const bool modern = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (!modern || std::string(openblas_get_corename()) != "Prescott" || std::getenv(name)) return true;
  if (!gotoblas_dynamic_quit || !gotoblas_dynamic_init) return false;
  setenv(name, core, 1);
  gotoblas_dynamic_quit();
  gotoblas_dynamic_init();
  unsetenv(name);
  return true;
}();

std::atomic<bool> leave_threads_alone{false};

void pin_once() {
  static const bool pinned = [] {
    if (!leave_threads_alone) openblas_set_num_threads(1);
    return true;
  }();
  static_cast<void>(pinned);
}

blasint extent(int64_t n) {
  if (n > INT_MAX) throw ShapeError(fmt::format("matmul: expected extents below 2^31, got {}; split the tensor", n));
  return static_cast<blasint>(n);
}

template <class T, class F>
void call(const F& cblas_gemm, const Gemm<T>& g) {
  if (g.m == 0 || g.n == 0) return;
  if (g.k == 0) {
    for (int64_t i = 0; i < g.m && !g.accumulate; ++i) {
      for (int64_t j = 0; j < g.n; ++j) g.c[i * g.ldc + j] = 0;
    }
    return;
  }
  pin_once();
  cblas_gemm(CblasRowMajor, g.transpose_a ? CblasTrans : CblasNoTrans, g.transpose_b ? CblasTrans : CblasNoTrans,
             extent(g.m), extent(g.n), extent(g.k), T(1), g.a, extent(g.lda), g.b, extent(g.ldb),
             T(g.accumulate ? 1 : 0), g.c, extent(g.ldc));
}

}  // namespace

void gemm(const Gemm<float>& g) { call(cblas_sgemm, g); }
void gemm(const Gemm<double>& g) { call(cblas_dgemm, g); }

void leave_blas_threads_alone() { leave_threads_alone = true; }

std::string blas_description() {
  const std::string config = openblas_get_config();  // "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..."
  const size_t version_end = config.find(' ', config.find(' ') + 1);
  return fmt::format("{} {}", config.substr(0, version_end), openblas_get_corename());
}

}  // namespace tandem
