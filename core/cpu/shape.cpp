#include <cstring>

#include "tandem/core/cpu/kernel.h"
#include "tandem/core/walk.h"

namespace tandem::TANDEM_BACKEND {
namespace {

// y[i] = the element of x that `walk` (as its a) reaches at i.
void copy_walked(const Walk& walk, const View& x, const View& y) {
  element_size(y.dtype, [&]<class T>(T) {
    const int64_t step = walk.inner_a();
    parallel_ranges(walk.numel, kGrain, [&](int64_t begin, int64_t end) {
      for_runs(walk, begin, end, [&](int64_t i, int64_t ix, int64_t, int64_t n) {
        const T* from = x.as<T>() + ix;
        T* to = y.as<T>() + i;
        TANDEM_INDEPENDENT
        for (int64_t j = 0; j < n; ++j) to[j] = from[j * step];
      });
    });
  });
}

// Copies `bytes` bytes `count` times, advancing each side by its own distance.
void copy_blocks(const void* from, int64_t from_step, void* to, int64_t to_step, int64_t bytes, int64_t count) {
  parallel_ranges(count, max(1, kGrain * 4 / max(1, bytes)), [=](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(static_cast<char*>(to) + i * to_step, static_cast<const char*>(from) + i * from_step,
                  static_cast<size_t>(bytes));
    }
  });
}

}  // namespace

void run(const Permute& k) {
  const Shape& y = k.y.dims;
  Walk walk;
  for (int i = 0; i < y.rank(); ++i) walk.axis(y[i], along(k.x.dims, static_cast<int>(k.perm[i])).inner);
  copy_walked(walk, k.x, k.y);
}

void run(const Expand& k) {
  const Shape& y = k.y.dims;
  Walk walk;
  for (int i = 0; i < y.rank(); ++i) walk.axis(y[i], broadcast_step(k.x.dims, y.rank(), i));
  copy_walked(walk, k.x, k.y);
}

void run(const Slice& k) {
  const AxisView x = along(k.x.dims, k.axis), y = along(k.y.dims, k.axis);
  const int64_t unit = x.inner * size_of(k.x.dtype);
  copy_blocks(k.x.as<char>() + k.begin * unit, x.extent * unit, k.y.data, y.extent * unit, y.extent * unit, x.outer);
}

void run(const Place& k) {
  const AxisView x = along(k.x.dims, k.axis), y = along(k.y.dims, k.axis);
  const int64_t unit = x.inner * size_of(k.x.dtype);
  copy_blocks(k.x.data, x.extent * unit, k.y.as<char>() + k.begin * unit, y.extent * unit, x.extent * unit, x.outer);
}

void run(const GatherRows& k) {
  const int64_t rows = k.y.dims[0];
  if (k.y.dims.numel() == 0) return;
  const int64_t bytes = k.y.dims.numel() / rows * size_of(k.y.dtype);
  const int32_t* index = k.index.as<int32_t>();
  parallel_ranges(rows, max(1, kGrain * 4 / bytes), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      std::memcpy(k.y.as<char>() + i * bytes, k.x.as<char>() + index[i] * bytes, static_cast<size_t>(bytes));
    }
  });
}

void run(const GatherRowsGrad& k) {
  floating(k.dx.dtype, [&]<class T>(T) {
    std::memset(k.dx.data, 0, static_cast<size_t>(k.dx.dims.numel()) * sizeof(T));
    if (k.dy.dims.numel() == 0) return;
    const int64_t rows = k.dy.dims[0], width = k.dy.dims.numel() / rows;
    for (int64_t i = 0; i < rows; ++i) {
      const T* from = k.dy.as<T>() + i * width;
      T* to = k.dx.as<T>() + k.index.as<int32_t>()[i] * width;
      TANDEM_INDEPENDENT
      for (int64_t j = 0; j < width; ++j) to[j] += from[j];
    }
  });
}

namespace {

template <class T>
void scale_pixels(const uint8_t* x, T scale, T* y, int64_t n) {
  TANDEM_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(x[i]) * scale;
}

// The image x[H, W, C] moved by (down, right) pixels, scaled; what enters is 0.
template <class T>
void scale_shifted(const uint8_t* x, T scale, T* y, int64_t h, int64_t w, int64_t c, int64_t down, int64_t right) {
  std::memset(y, 0, static_cast<size_t>(h * w * c) * sizeof(T));
  const int64_t begin = max(0, right), end = min(w, w + right);
  for (int64_t row = max(0, down); row < min(h, h + down) && begin < end; ++row) {
    scale_pixels(x + ((row - down) * w + begin - right) * c, scale, y + (row * w + begin) * c, (end - begin) * c);
  }
}

}  // namespace

void run(const GatherImages& k) {
  const Shape& dims = k.y.dims;
  const int64_t h = dims[1], w = dims[2], c = dims[3], size = h * w * c;
  const int32_t *index = k.index.as<int32_t>(), *shifts = k.shifts.as<int32_t>();
  floating(k.y.dtype, [&]<class T>(T) {
    const T scale = static_cast<T>(k.scale);
    parallel_ranges(dims[0], max(1, 2 * kGrain / max(1, size)), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        const uint8_t* image = k.images.as<uint8_t>() + index[i] * size;
        const uint8_t* later = k.images.as<uint8_t>() + index[min(i + 4, end - 1)] * size;
        for (int64_t at = 0; at < size; at += 64) __builtin_prefetch(later + at);  // it may be anywhere in memory
        T* y = k.y.as<T>() + i * size;
        if (shifts)
          scale_shifted(image, scale, y, h, w, c, shifts[2 * i], shifts[2 * i + 1]);
        else
          scale_pixels(image, scale, y, size);
      }
    });
  });
}

}  // namespace tandem::TANDEM_BACKEND
