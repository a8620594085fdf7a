#include "tandem/cuda/block.h"

namespace tandem::cuda {
namespace {

// Elements 4 i to 4 i + 3, whose draws are the words of one Philox block: as the CPU draws them.
template <class T>
struct DropFour {
  const T* x;
  const int64_t* call;
  T* y;
  int64_t n;
  uint64_t key, threshold;
  T kept;
  TANDEM_DEVICE void operator()(int64_t i) const {
    const Philox draw = philox4x32(key, static_cast<uint64_t>(i), static_cast<uint64_t>(*call));
    for (int j = 0; j < 4; ++j) {
      const int64_t at = 4 * i + j;
      if (at < n) y[at] = draw.v[j] < threshold ? T(0) : x[at] / kept;
    }
  }
};

}  // namespace
}  // namespace tandem::cuda

namespace tandem {
using namespace cuda;

void run(Cuda, const DropoutApply& k) {
  const int64_t n = k.x.dims.numel();
  floating(k.x.dtype, [&]<class T>(T) {
    for_elements(k.y.device, ceil_div(n, 4),
                 DropFour<T>{k.x.as<T>(), k.call.as<int64_t>(), k.y.as<T>(), n, k.key,
                             static_cast<uint64_t>(k.p * 4294967296.0), static_cast<T>(1 - k.p)});
  });
}

}  // namespace tandem
