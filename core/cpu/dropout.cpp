#include "kernel.h"

namespace tandem::TANDEM_CPU_PATH {

// Element i is dropped when word i % 4 of Philox(key, counter = i / 4 + 2^64 call), a uniform 32-bit number, is below
// p 2^32. The gradient is the same kernel with the same key and call.
void run(const DropoutApply& k) {
  const uint64_t call = static_cast<uint64_t>(*k.call.as<int64_t>());
  const uint64_t threshold = static_cast<uint64_t>(k.p * 4294967296.0);
  floating(k.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* x = k.x.as<T>();
    T* y = k.y.as<T>();
    const T kept = static_cast<T>(1 - k.p);
    static_assert(kGrain % 4 == 0);
    parallel_ranges(k.x.dims.numel(), kGrain, [=, key = k.key](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += 4) {
        const Philox draw = philox4x32(key, static_cast<uint64_t>(i) / 4, call);
        for (int64_t j = 0; j < min(4, end - i); ++j) y[i + j] = draw.v[j] < threshold ? T(0) : x[i + j] / kept;
      }
    });
  });
}

}  // namespace tandem::TANDEM_CPU_PATH
