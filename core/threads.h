// How many threads kernels may use. Results never depend on it: work is cut by shape alone.
#pragma once

#include <string>

namespace tandem {

int available_cores();        // that this process may use: of its affinity and a container's CPU quota
void set_threads(int n);      // for kernels called by any thread; n >= 1 (ValueError). Default: available_cores()
int threads();

// While alive, kernels called by *this* thread use one core: for programs that run several models at once.
class SingleThreaded {
 public:
  SingleThreaded();
  ~SingleThreaded();
  SingleThreaded(const SingleThreaded&) = delete;
  SingleThreaded& operator=(const SingleThreaded&) = delete;

 private:
  bool before_;
};

// "avx512", "avx2" or "x86-64": the instruction set that the CPU kernels use here. The environment's
// TANDEM_CPU_PATH may name a lesser one.
const char* cpu_path();
// The BLAS and the core type it chose, such as "OpenBLAS 0.3.21 SkylakeX".
std::string blas_description();
// Before the first kernel: leave OpenBLAS's own threading as the host program set it. Otherwise it is pinned
// to one thread at first use (its results depend on its thread count; ours must not).
void leave_blas_threads_alone();

}  // namespace tandem
