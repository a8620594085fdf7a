// The input's gradient: for each phase (window.h) and group,
// dx[pixels of the phase, C] = windows of dy [pixels, places O] w[places O, C], of those places that the phase sees.
#include "tandem/cuda/conv.h"

namespace tandem::cuda {
namespace {

// The kernel's places that a phase sees along an axis: last, last - step, ..
struct SeenAxis {
  int last, step;
};

// w[(places O), C] of one group and phase as a source of factors.
template <class T>
struct SeenWeights {
  using Value = T;
  using Line = int;
  static constexpr bool kAlongK = false, kFinish = false;
  const T* memory;
  int kernel_h, kernel_w, group_c, steps;
  Divider depth, seen_w;
  SeenAxis y, x;

  TANDEM_DEVICE int line(int i) const { return i < group_c ? i : -1; }
  TANDEM_DEVICE int step(int k) const {
    if (k >= steps) return -1;
    const int out = depth.take(k), column = x.last - seen_w.take(k) * x.step, row = y.last - k * y.step;
    return ((out * kernel_h + row) * kernel_w + column) * group_c;
  }
  template <int kCount>
  TANDEM_DEVICE bool load(const Block& block, int line, int step, T (&to)[kCount]) const {
    return load_at(block, memory, (line | step) < 0 ? -1 : line + step, to);
  }
};

// A phase along one axis.
struct PhaseAxis {
  SlidingAxis windows;
  SeenAxis seen;
  int first, count, taps;

  PhaseAxis() = default;
  PhaseAxis(const Phase& p, int64_t extent)
      : windows{static_cast<int>(extent), Divider(max(1, p.count)), static_cast<int>(p.begin), 1,
                Divider(max(1, p.taps)),  static_cast<int>(p.hop)},
        seen{static_cast<int>(p.last), static_cast<int>(p.step)},
        first(static_cast<int>(p.first)),
        count(static_cast<int>(p.count)),
        taps(static_cast<int>(p.taps)) {}
};
constexpr int kPhases = 4;  // of a launch, along each axis

template <class T>
struct ConvDxProblem {
  using Value = T;
  using A = Patches<T, false, false>;
  using B = SeenWeights<T>;
  const T *dy, *w;
  T* dx;
  int images, out, group_out, kernel_h, kernel_w, h, width, c, group_c, stride_h, stride_w;
  Divider groups, depth, phases_h, phases_w;
  PhaseAxis y[kPhases], x[kPhases];

  struct Task {
    A a;
    B b;
    T* dx;
    int m, n, begin, end, h, width, c, stride_h, stride_w;

    TANDEM_DEVICE T* row(int i) const {
      const int column = a.windows.x.count.take(i) * stride_w, line = a.windows.y.count.take(i) * stride_h;
      return dx + ((i * h + line) * width + column) * c;
    }
    TANDEM_DEVICE T value(T sum, int) const { return sum; }
  };
  TANDEM_DEVICE Task task(int& index) const {
    const int group = groups.take(index);
    const PhaseAxis &px = x[phases_w.take(index)], &py = y[phases_h.take(index)];
    const int rows = images * py.count * px.count, steps = py.taps * px.taps * group_out;
    return {{{dy, py.windows, px.windows, out, group * group_out, rows, steps, depth}, {}},
            {w + group * group_out * kernel_h * kernel_w * group_c, kernel_h, kernel_w, group_c, steps, depth,
             px.windows.places, py.seen, px.seen},
            dx + (py.first * width + px.first) * c + group * group_c,
            rows,
            group_c,
            0,
            steps,
            h,
            width,
            c,
            stride_h,
            stride_w};
  }
};

}  // namespace
}  // namespace tandem::cuda

namespace tandem {
using namespace cuda;

void run(Cuda, const ConvDx& k) {
  const Device device = k.dx.device;
  const ConvShape s(k.dx.dims, k.dy.dims, k.window, k.groups);
  const Window& window = k.window;
  const auto number = [](int64_t i) { return static_cast<int>(i); };
  floating(k.dx.dtype, [&]<class T>(T) {
    ConvDxProblem<T> p{};
    p.w = k.w.as<T>();
    p.out = number(s.out_c), p.group_out = number(s.group_out), p.c = number(s.c), p.group_c = number(s.group_c);
    p.kernel_h = number(window.kernel.h), p.kernel_w = number(window.kernel.w);
    p.stride_h = number(window.stride.h), p.stride_w = number(window.stride.w);
    p.h = number(s.h), p.width = number(s.w);
    p.groups = Divider(s.groups), p.depth = Divider(max(1, s.group_out));
    for_images(k.dx.dims[0], s.frame(), [&](int64_t first, int64_t images) {
      p.images = number(images);
      p.dy = k.dy.as<T>() + first * s.pixels() * s.out_c;
      p.dx = k.dx.as<T>() + first * s.image();
      const bool whole_stores = s.group_c % 4 == 0 && aligned(p.dx);
      const bool vector = s.vectors(p.dy, p.w);
      for (int64_t i = 0; i < min(window.stride.h, s.h); i += kPhases) {
        for (int64_t j = 0; j < min(window.stride.w, s.w); j += kPhases) {
          const int64_t rows = min(kPhases, min(window.stride.h, s.h) - i);
          const int64_t columns = min(kPhases, min(window.stride.w, s.w) - j);
          p.phases_h = Divider(rows), p.phases_w = Divider(columns);
          for (int64_t f = 0; f < rows; ++f) {
            p.y[f] = {{i + f, window.kernel.h, window.stride.h, window.padding.h, window.dilation.h, s.h}, s.out_h};
          }
          for (int64_t f = 0; f < columns; ++f) {
            p.x[f] = {{j + f, window.kernel.w, window.stride.w, window.padding.w, window.dilation.w, s.w}, s.out_w};
          }
          const int64_t m = images * p.y[0].count * p.x[0].count, others = s.groups * rows * columns;
          multiply(device, tile_size(m, s.group_c, others, vector), k.math, vector, whole_stores, m, s.group_c, others,
                   p);
        }
      }
    });
  });
}

}  // namespace tandem
