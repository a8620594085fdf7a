#include "tandem/core/cuda.h"
#include "tandem/core/window.h"
#include "tandem/cuda/index.h"

namespace tandem::cuda {
namespace {

// Elements of [images, H, W, C].
struct Elements {
  Divider channels, columns, rows;

  Elements(int64_t h, int64_t w, int64_t c) : channels(max(1, c)), columns(max(1, w)), rows(max(1, h)) {}
  struct At {
    int image, y, x, channel;
  };
  TANDEM_DEVICE At at(int64_t element) const {
    int i = static_cast<int>(element);
    const int channel = channels.take(i), x = columns.take(i), y = rows.take(i);
    return {i, y, x, channel};
  }
};

// f(position iy * W + ix) for the window's places inside the image, in window order.
template <class F>
TANDEM_DEVICE void for_window(const Geometry& g, int64_t oy, int64_t ox, const F& f) {
  const Range ky = g.rows(oy), kx = g.columns(ox);
  for (int64_t i = ky.begin; i < ky.end; ++i) {
    const int64_t row = (g.top(oy) + i * g.window.dilation.h) * g.w + g.left(ox);
    for (int64_t j = kx.begin; j < kx.end; ++j) f(static_cast<int>(row + j * g.window.dilation.w));
  }
}

template <class T>
struct MaxPoolValue {
  Geometry g;
  Elements elements;
  const T* x;
  T* y;
  int32_t* index;

  TANDEM_DEVICE void operator()(int64_t i) const {
    const Elements::At at = elements.at(i);
    const int channels = static_cast<int>(g.c);
    const T* image = x + at.image * g.image() + at.channel;
    T best = -static_cast<T>(__builtin_inf());
    int where = -1;
    for_window(g, at.y, at.x, [&](int position) {  // a NaN wins, and then stays; -inf wins over nothing seen yet
      const T value = image[position * channels];
      const bool wins = best == best && (!(value <= best) || where < 0);
      best = wins ? value : best;
      where = wins ? position : where;
    });
    y[i] = best;
    index[i] = where;
  }
};

// A part of a channel of an image by one thread, which looks through all windows: they may overlap, and what they add
// has an order.
template <class T>
struct MaxPoolGradPart {
  Divider channels, parts;
  int pixels, places;
  const T* dy;
  const int32_t* index;
  T* dx;

  TANDEM_DEVICE void operator()(int64_t i) const {
    constexpr int kAtOnce = 8;  // so many loads in flight
    int image = static_cast<int>(i);
    const int c = channels.divisor, channel = channels.take(image);
    const Range own = part({0, places}, parts.take(image), parts.divisor);
    const int begin = static_cast<int>(own.begin), end = static_cast<int>(own.end);
    T* to = dx + static_cast<int64_t>(image) * places * c + channel;
    const int64_t first = static_cast<int64_t>(image) * pixels * c + channel;
    for (int p = begin; p < end; ++p) to[p * c] = 0;
    for (int p = 0; p < pixels; p += kAtOnce) {
      int position[kAtOnce];
      T value[kAtOnce];
      TANDEM_UNROLL
      for (int j = 0; j < kAtOnce; ++j) position[j] = p + j < pixels ? index[first + (p + j) * c] : -1;
      TANDEM_UNROLL
      for (int j = 0; j < kAtOnce; ++j) {
        if (position[j] < begin || position[j] >= end) position[j] = -1;  // -1 too: the window lay in the padding
        value[j] = position[j] >= 0 ? dy[first + (p + j) * c] : T(0);
      }
      TANDEM_UNROLL
      for (int j = 0; j < kAtOnce; ++j) {
        if (position[j] >= 0) to[position[j] * c] += value[j];
      }
    }
  }
};

template <class T>
struct AvgPoolValue {
  Geometry g;
  Elements elements;
  bool count_padding;
  const T* x;
  T* y;

  TANDEM_DEVICE void operator()(int64_t i) const {
    const Elements::At at = elements.at(i);
    const int channels = static_cast<int>(g.c);
    const T* image = x + at.image * g.image() + at.channel;
    double sum = 0;
    for_window(g, at.y, at.x, [&](int position) { sum += static_cast<double>(image[position * channels]); });
    y[i] = static_cast<T>(sum / static_cast<double>(g.count(at.y, at.x, count_padding)));
  }
};

// The windows that may have `place` of an axis: those that begin at it or up to their reach before.
struct Windows {
  int first, last;
  TANDEM_DEVICE Windows(int64_t place_, int64_t kernel, int64_t stride_, int64_t padding, int64_t dilation_,
                        int64_t windows)
      : stride(static_cast<int>(stride_)), dilation(static_cast<int>(dilation_)) {
    place = static_cast<int>(place_ + padding);
    const int64_t reach = (kernel - 1) * dilation_;
    first = place > reach ? (place - static_cast<int>(reach) + stride - 1) / stride : 0;
    last = static_cast<int>(min(windows - 1, place / stride));
  }
  // Whether window o does.
  TANDEM_DEVICE bool has(int o) const { return dilation == 1 || (place - o * stride) % dilation == 0; }

 private:
  int stride, dilation, place;
};

template <class T>
struct AvgPoolGradValue {
  Geometry g;
  Elements elements;
  bool count_padding;
  const T* dy;
  T* dx;

  TANDEM_DEVICE void operator()(int64_t i) const {
    const Elements::At at = elements.at(i);
    const Window& window = g.window;
    const Windows y(at.y, window.kernel.h, window.stride.h, window.padding.h, window.dilation.h, g.out_h);
    const Windows x(at.x, window.kernel.w, window.stride.w, window.padding.w, window.dilation.w, g.out_w);
    const int columns = static_cast<int>(g.out_w), channels = static_cast<int>(g.c);
    const T* image = dy + at.image * g.pixels() * g.c + at.channel;
    T sum = 0;
    for (int oy = y.first; oy <= y.last; ++oy) {
      for (int ox = x.first; y.has(oy) && ox <= x.last; ++ox) {
        if (!x.has(ox)) continue;
        sum += image[(oy * columns + ox) * channels] / static_cast<T>(g.count(oy, ox, count_padding));
      }
    }
    dx[i] = sum;
  }
};

constexpr int64_t kThreadsWanted = 132 * 256;  // a block for each multiprocessor

// The most elements of an image of x or y.
int64_t largest_image(const Geometry& g) { return max(g.image(), g.pixels() * g.c); }

}  // namespace
}  // namespace tandem::cuda

namespace tandem {
using namespace cuda;

void run(Cuda, const MaxPool& k) {
  const Geometry g(k.x.dims, k.y.dims, k.window);
  const Elements elements(g.out_h, g.out_w, g.c);
  const int64_t image = g.pixels() * g.c;
  floating(k.x.dtype, [&]<class T>(T) {
    for_images(k.x.dims[0], largest_image(g), [&](int64_t first, int64_t images) {
      for_elements(k.y.device, images * image,
                   MaxPoolValue<T>{g, elements, k.x.as<T>() + first * g.image(), k.y.as<T>() + first * image,
                                   k.index.as<int32_t>() + first * image});
    });
  });
}

void run(Cuda, const MaxPoolGrad& k) {
  const Shape &dx = k.dx.dims, &dy = k.dy.dims;
  const int64_t places = dx[1] * dx[2], pixels = dy[1] * dy[2], channels = dx[3];
  floating(k.dy.dtype, [&]<class T>(T) {
    for_images(dx[0], max(places, pixels) * channels, [&](int64_t first, int64_t images) {
      const int64_t all = max(1, images * channels), parts = max(1, min(8, min(places, kThreadsWanted / all)));
      for_elements(k.dx.device, images * channels * parts,
                   MaxPoolGradPart<T>{Divider(max(1, channels)), Divider(parts), static_cast<int>(pixels),
                                      static_cast<int>(places), k.dy.as<T>() + first * pixels * channels,
                                      k.index.as<int32_t>() + first * pixels * channels,
                                      k.dx.as<T>() + first * places * channels});
    });
  });
}

void run(Cuda, const AvgPool& k) {
  const Geometry g(k.x.dims, k.y.dims, k.window);
  const Elements elements(g.out_h, g.out_w, g.c);
  const int64_t image = g.pixels() * g.c;
  floating(k.x.dtype, [&]<class T>(T) {
    for_images(k.x.dims[0], largest_image(g), [&](int64_t first, int64_t images) {
      for_elements(
          k.y.device, images * image,
          AvgPoolValue<T>{g, elements, k.count_padding, k.x.as<T>() + first * g.image(), k.y.as<T>() + first * image});
    });
  });
}

void run(Cuda, const AvgPoolGrad& k) {
  const Geometry g(k.dx.dims, k.dy.dims, k.window);
  const Elements elements(g.h, g.w, g.c);
  floating(k.dy.dtype, [&]<class T>(T) {
    for_images(k.dx.dims[0], largest_image(g), [&](int64_t first, int64_t images) {
      for_elements(k.dx.device, images * g.image(),
                   AvgPoolGradValue<T>{g, elements, k.count_padding, k.dy.as<T>() + first * g.pixels() * g.c,
                                       k.dx.as<T>() + first * g.image()});
    });
  });
}

}  // namespace tandem
