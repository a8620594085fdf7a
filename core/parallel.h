// How CPU kernels use several cores. Internal: the public half is threads.h.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tandem {

// body(context, 0) ... body(context, n - 1), in any order, on the pool's threads and the calling one. Runs all of
// them inline when n is 1, threads() is 1, under SingleThreaded, inside another parallel_for, and while the pool
// works for another thread. Rethrows the first exception of a body; those not yet begun are then skipped.
void parallel_for(int64_t n, void (*body)(const void* context, int64_t i), const void* context);

// f(0) ... f(n - 1). What f writes must not depend on the order.
template <class F>
[[gnu::always_inline]] inline void parallel_for(int64_t n, const F& f) {
  parallel_for(n, [](const void* context, int64_t i) { (*static_cast<const F*>(context))(i); }, &f);
}

// f(begin, end) over pieces of [0, n), each `grain` long but the last. A small n is one piece.
template <class F>
[[gnu::always_inline]] inline void parallel_ranges(int64_t n, int64_t grain, const F& f) {
  parallel_for((n + grain - 1) / grain, [&](int64_t i) {
    const int64_t begin = i * grain;
    f(begin, n - begin < grain ? n : begin + grain);
  });
}

// How many bodies a parallel_for of this thread runs at once: threads(), or 1 where it runs them inline.
int parallel_width();

// How many cores a cgroup's cpu.max grants: "150000 100000" is 2, "max 100000" or nothing INT_MAX.
int cores_of_quota(const char* cpu_max);

// This thread's scratch memory, 64-byte aligned and uninitialised, valid until its next call: take it inside a
// parallel body, never across one, unless the body takes none. Grows when it must and stays. Throws OutOfMemory.
void* scratch_bytes(size_t bytes);
// Another such block, for what the bodies of one parallel_for share: taken by whoever starts it.
void* shared_scratch_bytes(size_t bytes);
template <class T>
[[gnu::always_inline]] inline T* scratch(int64_t n) {
  return static_cast<T*>(scratch_bytes(static_cast<size_t>(n) * sizeof(T)));
}
template <class T>
[[gnu::always_inline]] inline T* shared_scratch(int64_t n) {
  return static_cast<T*>(shared_scratch_bytes(static_cast<size_t>(n) * sizeof(T)));
}

}  // namespace tandem
