// What every file in this folder starts from. They are compiled once per instruction set, each copy in a namespace
// named after it (TANDEM_BACKEND); core/run_cpu.cpp picks one. Such a file may emit no weak symbol outside its
// namespace, or the linker could give an old CPU the copy made for a newer one: no std containers, algorithms or
// functions defined in headers here. Threads, scratch memory and BLAS come from ordinary files.
#pragma once

#include "tandem/core/backend.h"
#include "tandem/core/parallel.h"

// Before a loop whose iterations touch different elements, which the compiler cannot see from the pointers.
#ifdef __clang__
#define TANDEM_INDEPENDENT  // Clang checks for overlap at run time instead
#define TANDEM_ROLLED
#else
#define TANDEM_INDEPENDENT _Pragma("GCC ivdep")
#define TANDEM_ROLLED _Pragma("GCC unroll 1")  // a short loop of fixed length: unrolled, it would not vectorise
#endif

namespace tandem::TANDEM_BACKEND {

#define TANDEM_DECLARE(K) void run(const K& k);
TANDEM_CPU_KERNELS(TANDEM_DECLARE)
#undef TANDEM_DECLARE

// Elements per piece of elementwise work: some microseconds, many times what handing it to a thread costs.
inline constexpr int64_t kGrain = 16384;

// f(i) for all i in [0, n); the loop is the compiler's to vectorise, so f must treat elements independently.
template <class F>
void for_elements(int64_t n, const F& f) {
  parallel_ranges(n, kGrain, [&](int64_t begin, int64_t end) {
    const F local = f;
    TANDEM_INDEPENDENT
    for (int64_t i = begin; i < end; ++i) local(i);
  });
}

}  // namespace tandem::TANDEM_BACKEND
