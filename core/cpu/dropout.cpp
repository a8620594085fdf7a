#include "tandem/core/cpu/kernel.h"

namespace tandem::TANDEM_BACKEND {

constexpr int64_t kBlock = 64;  // elements whose draws are made together, so that they vectorise

// Element i is dropped when word i % 4 of Philox(key, counter = i / 4 + 2^64 call), a uniform 32-bit number, is below
// p 2^32. The gradient is the same kernel with the same key and call.
void run(const DropoutApply& k) {
  const uint64_t call = static_cast<uint64_t>(*k.call.as<int64_t>());
  const uint64_t threshold = static_cast<uint64_t>(k.p * 4294967296.0);
  floating(k.x.dtype, [&]<class T>(T) {
    const T* x = k.x.as<T>();
    T* y = k.y.as<T>();
    const T kept = static_cast<T>(1 - k.p);
    static_assert(kGrain % kBlock == 0);
    parallel_ranges(k.x.dims.numel(), kGrain, [=, key = k.key](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += kBlock) {
        uint32_t draw[kBlock];
        for (uint32_t j = 0; j < kBlock / 4; ++j) {
          const Philox words = philox4x32(key, static_cast<uint64_t>(i) / 4 + j, call);
          for (int w = 0; w < 4; ++w) draw[4 * j + w] = words.v[w];
        }
        const int64_t width = min(kBlock, end - i);
        for (int64_t j = 0; j < width; ++j) y[i + j] = draw[j] < threshold ? T(0) : x[i + j] / kept;
      }
    });
  });
}

}  // namespace tandem::TANDEM_BACKEND
