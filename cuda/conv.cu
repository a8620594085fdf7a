// The convolution itself: y[pixels, O] = windows of x [pixels, places C] w[O, places C]^T, for each group.
#include <string>

#include "tandem/core/cuda.h"
#include "tandem/cuda/conv.h"

namespace tandem::cuda {

void expect_tensor_cores(Device device) {
  const DeviceInfo& gpu = devices().all[static_cast<size_t>(device.index)];
  if (gpu.major >= 8) return;
  throw DeviceError("cuda: tf32 and bf16 need compute capability 8.0, this GPU has " + std::to_string(gpu.major) + "." +
                    std::to_string(gpu.minor));
}

namespace {

template <class T>
struct ConvProblem {
  using Value = T;
  using A = Patches<T, false, true>;
  using B = Matrix<T, true>;
  A x;
  B w;  // of the first group
  const T* bias;
  T* y;
  int out, group_out, group_c;
  Divider groups;

  struct Task {
    A a;
    B b;
    const T* bias;
    T* y;
    int m, n, begin, end, out;

    TANDEM_DEVICE T* row(int i) const { return y + i * out; }
    TANDEM_DEVICE T value(T sum, int j) const { return bias ? sum + bias[j] : sum; }
  };
  TANDEM_DEVICE Task task(int& index) const {
    const int group = groups.take(index), first = group * group_out;
    Task t{x, w, bias ? bias + first : nullptr, y + first, x.windows.rows, group_out, 0, x.windows.columns, out};
    t.a.windows.first_channel = group * group_c;
    t.b.memory += first * x.windows.columns;
    return t;
  }
};

}  // namespace
}  // namespace tandem::cuda

namespace tandem {
using namespace cuda;

void run(Cuda, const Conv& k) {
  const Device device = k.y.device;
  const ConvShape s(k.x.dims, k.y.dims, k.window, k.groups);
  floating(k.y.dtype, [&]<class T>(T) {
    const T *x = k.x.as<T>(), *w = k.w.as<T>();
    const bool vector = s.vectors(x, w);
    const Prologue<T> p = prologue<T>(k, workspace<double>(device, prologue_size(k)));
    const int columns = static_cast<int>(s.places * s.group_c), group_out = static_cast<int>(s.group_out);
    for_images(k.x.dims[0], s.frame(), [&](int64_t first, int64_t images) {
      T* y = k.y.as<T>() + first * s.pixels() * s.out_c;
      const ConvProblem<T> problem{{s.windows(x + first * s.image(), images), p},
                                   {w, group_out, columns, columns, 1},
                                   k.b.as<T>(),
                                   y,
                                   static_cast<int>(s.out_c),
                                   group_out,
                                   static_cast<int>(s.group_c),
                                   Divider(s.groups)};
      const int64_t m = images * s.pixels();
      multiply(device, tile_size(m, s.group_out, s.groups, vector), k.math, vector, s.group_out % 4 == 0 && aligned(y),
               m, s.group_out, s.groups, problem);
    });
  });
}

}  // namespace tandem
