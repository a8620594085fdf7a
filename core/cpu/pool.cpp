#include <cstring>

#include "tandem/core/cpu/kernel.h"
#include "tandem/core/window.h"

namespace tandem::TANDEM_BACKEND {
namespace {

// f(oy, ox) for every output pixel.
template <class F>
void for_pixels(const Geometry& g, const F& f) {
  for (int64_t oy = 0; oy < g.out_h; ++oy) {
    for (int64_t ox = 0; ox < g.out_w; ++ox) f(oy, ox);
  }
}

// f(position iy * W + ix) for the window's places inside the image, in window order.
template <class F>
void for_window(const Geometry& g, int64_t oy, int64_t ox, const F& f) {
  const Range ky = g.rows(oy), kx = g.columns(ox);
  for (int64_t i = ky.begin; i < ky.end; ++i) {
    for (int64_t j = kx.begin; j < kx.end; ++j) {
      f((g.top(oy) + i * g.window.dilation.h) * g.w + g.left(ox) + j * g.window.dilation.w);
    }
  }
}

}  // namespace

void run(const MaxPool& k) {
  const Geometry g(k.x.dims, k.y.dims, k.window);
  floating(k.x.dtype, [&]<class T>(T) {
    parallel_for(k.x.dims[0], [&](int64_t n) {
      const T* x = k.x.as<T>() + n * g.image();
      for_pixels(g, [&](int64_t oy, int64_t ox) {
        const int64_t out = ((n * g.out_h + oy) * g.out_w + ox) * g.c;
        T* y = k.y.as<T>() + out;
        int32_t* index = k.index.as<int32_t>() + out;
        for (int64_t c = 0; c < g.c; ++c) y[c] = -static_cast<T>(__builtin_inf()), index[c] = -1;
        for_window(g, oy, ox, [&](int64_t at) {
          const T* value = x + at * g.c;
          TANDEM_INDEPENDENT
          for (int64_t c = 0; c < g.c; ++c) {  // a NaN wins, and then stays; -inf wins over nothing seen yet
            const bool wins = y[c] == y[c] && (!(value[c] <= y[c]) || index[c] < 0);
            y[c] = wins ? value[c] : y[c];
            index[c] = wins ? static_cast<int32_t>(at) : index[c];
          }
        });
      });
    });
  });
}

void run(const MaxPoolGrad& k) {
  const Shape &dx_dims = k.dx.dims, &dy_dims = k.dy.dims;
  const int64_t channels = dx_dims[3], image = dx_dims[1] * dx_dims[2] * channels;
  const int64_t pixels = dy_dims[1] * dy_dims[2];
  floating(k.dy.dtype, [&]<class T>(T) {
    parallel_for(dx_dims[0], [&](int64_t n) {
      T* dx = k.dx.as<T>() + n * image;
      std::memset(dx, 0, static_cast<size_t>(image) * sizeof(T));
      const T* dy = k.dy.as<T>() + n * pixels * channels;
      const int32_t* index = k.index.as<int32_t>() + n * pixels * channels;
      for (int64_t i = 0; i < pixels; ++i, dy += channels, index += channels) {
        for (int64_t c = 0; c < channels; ++c) {
          if (index[c] >= 0) dx[index[c] * channels + c] += dy[c];  // -1: the window lay in the padding
        }
      }
    });
  });
}

void run(const AvgPool& k) {
  const Geometry g(k.x.dims, k.y.dims, k.window);
  floating(k.x.dtype, [&]<class T>(T) {
    parallel_for(k.x.dims[0], [&](int64_t n) {
      const T* x = k.x.as<T>() + n * g.image();
      double* sum = scratch<double>(g.c);
      for_pixels(g, [&](int64_t oy, int64_t ox) {
        for (int64_t c = 0; c < g.c; ++c) sum[c] = 0;
        for_window(g, oy, ox, [&](int64_t at) {
          const T* value = x + at * g.c;
          TANDEM_INDEPENDENT
          for (int64_t c = 0; c < g.c; ++c) sum[c] += static_cast<double>(value[c]);
        });
        const double count = static_cast<double>(g.count(oy, ox, k.count_padding));
        T* y = k.y.as<T>() + ((n * g.out_h + oy) * g.out_w + ox) * g.c;
        for (int64_t c = 0; c < g.c; ++c) y[c] = static_cast<T>(sum[c] / count);
      });
    });
  });
}

void run(const AvgPoolGrad& k) {
  const Geometry g(k.dx.dims, k.dy.dims, k.window);
  floating(k.dy.dtype, [&]<class T>(T) {
    parallel_for(k.dx.dims[0], [&](int64_t n) {
      T* dx = k.dx.as<T>() + n * g.image();
      std::memset(dx, 0, static_cast<size_t>(g.image()) * sizeof(T));
      for_pixels(g, [&](int64_t oy, int64_t ox) {
        const T* dy = k.dy.as<T>() + ((n * g.out_h + oy) * g.out_w + ox) * g.c;
        const T count = static_cast<T>(g.count(oy, ox, k.count_padding));
        for_window(g, oy, ox, [&](int64_t at) {
          T* to = dx + at * g.c;
          TANDEM_INDEPENDENT
          for (int64_t c = 0; c < g.c; ++c) to[c] += dy[c] / count;
        });
      });
    });
  });
}

}  // namespace tandem::TANDEM_BACKEND
