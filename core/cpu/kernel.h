// What every file in this folder starts from. They are compiled once per instruction set, each copy in a namespace
// named after it (TANDEM_CPU_PATH); core/run_cpu.cpp picks one. Such a file may emit no weak symbol outside its
// namespace, or the linker could give an old CPU the copy made for a newer one: no std containers, algorithms or
// functions defined in headers here. Threads, scratch memory and BLAS come from ordinary files.
#pragma once

#include "tandem/core/kernels.h"
#include "tandem/core/parallel.h"
#include "tandem/core/scalar_math.h"

// Before a loop whose iterations touch different elements, which the compiler cannot see from the pointers.
#ifdef __clang__
#define TANDEM_INDEPENDENT  // Clang checks for overlap at run time instead
#define TANDEM_ROLLED
#else
#define TANDEM_INDEPENDENT _Pragma("GCC ivdep")
#define TANDEM_ROLLED _Pragma("GCC unroll 1")  // a short loop of fixed length: unrolled, it would not vectorise
#endif

namespace tandem::TANDEM_CPU_PATH {

#define TANDEM_DECLARE(K) void run(const K& k);
TANDEM_KERNELS(TANDEM_DECLARE)
#undef TANDEM_DECLARE

// f(T{}) with the C++ type of a floating dtype.
template <class F>
void floating(Dtype dtype, const F& f) {
  dtype == Dtype::float32 ? f(float{}) : f(double{});
}

// f(T{}) with the C++ type of any dtype.
template <class F>
void any_type(Dtype dtype, const F& f) {
  switch (dtype) {
    case Dtype::float32:
      return f(float{});
    case Dtype::float64:
      return f(double{});
    case Dtype::int32:
      return f(int32_t{});
    case Dtype::int64:
      return f(int64_t{});
    case Dtype::uint8:
      return f(uint8_t{});
  }
}

template <auto V>
struct Constant {};

// f(Constant<op>{}) for an op of an enumeration that ends with `last`: the loops in f are compiled for each op.
template <auto last, class F>
void for_op(decltype(last) op, const F& f) {
  if constexpr (static_cast<int>(last) > 0) {
    if (op != last) return for_op<static_cast<decltype(last)>(static_cast<int>(last) - 1)>(op, f);
  }
  f(Constant<last>{});
}

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

[[gnu::always_inline]] inline int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
[[gnu::always_inline]] inline int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
[[gnu::always_inline]] inline int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

struct Range {
  int64_t begin, end;
  int64_t size() const { return max(0, end - begin); }
};
// The i-th of so many parts, nearly equal.
inline Range part(Range all, int64_t i, int64_t parts) {
  return {all.begin + all.size() * i / parts, all.begin + all.size() * (i + 1) / parts};
}

// A tensor seen as [outer, extent, inner] around one axis.
struct AxisView {
  int64_t outer, extent, inner;
};
[[gnu::always_inline]] inline AxisView along(const Shape& dims, int axis) {
  AxisView v{1, dims[axis], 1};
  for (int i = 0; i < axis; ++i) v.outer *= dims[i];
  for (int i = axis + 1; i < dims.rank(); ++i) v.inner *= dims[i];
  return v;
}

}  // namespace tandem::TANDEM_CPU_PATH
