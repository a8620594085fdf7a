#include "tandem/core/walk.h"
#include "tandem/cuda/block.h"

namespace tandem::cuda {
namespace {

// y[i] = the element of x that `walk` (as its a) reaches at i.
template <class T>
struct CopyWalked {
  Walk walk;
  const T* x;
  T* y;
  TANDEM_DEVICE void operator()(int64_t i) const { y[i] = x[walk.at(i).a]; }
};

void copy_walked(const Walk& walk, const View& x, const View& y) {
  element_size(y.dtype, [&]<class T>(T) {
    for_elements(y.device, walk.numel, CopyWalked<T>{walk, x.as<T>(), y.as<T>()});
  });
}

// Blocks of `length` elements, whose begins lie `from_step` apart in x and `to_step` in y.
template <class T>
struct CopyBlocks {
  const T* from;
  T* to;
  int64_t length, from_step, to_step;
  TANDEM_DEVICE void operator()(int64_t i) const {
    const int64_t block = i / length, at = i - block * length;
    to[block * to_step + at] = from[block * from_step + at];
  }
};

template <class T>
struct GatherRow {
  const T* x;
  const int32_t* index;
  T* y;
  int64_t rows, width;
  TANDEM_DEVICE void operator()(int64_t i) const {
    const int64_t row = i / width, from = index[row];
    y[i] = from >= 0 && from < rows ? x[from * width + (i - row * width)] : T(0);
  }
};

// One thread for each element of dx, which looks for itself in the index: sums in order without atomics.
template <class T>
struct GatherRowGrad {
  const T* dy;
  const int32_t* index;
  T* dx;
  int64_t count, width;
  TANDEM_DEVICE void operator()(int64_t i) const {
    const int64_t row = i / width, column = i - row * width;
    T sum = 0;
    for (int64_t j = 0; j < count; ++j) {
      if (index[j] == row) sum += dy[j * width + column];
    }
    dx[i] = sum;
  }
};

template <class T>
struct GatherPixel {
  const uint8_t* images;
  const int32_t *index, *shifts;  // shifts may be null
  T* y;
  T scale;
  int64_t count;          // of images
  int32_t h, w, c, size;  // of an image
  TANDEM_DEVICE void operator()(int64_t i) const {
    const int64_t image = i / size;
    const int32_t at = static_cast<int32_t>(i - image * size);
    if (index[image] < 0 || index[image] >= count) {
      y[i] = T(0);
      return;
    }
    const uint8_t* x = images + index[image] * int64_t{size};
    if (!shifts) {
      y[i] = static_cast<T>(x[at]) * scale;
      return;
    }
    const int32_t pixel = at / c, row = pixel / w - shifts[2 * image], column = pixel % w - shifts[2 * image + 1];
    const bool inside = row >= 0 && row < h && column >= 0 && column < w;
    y[i] = inside ? static_cast<T>(x[(row * w + column) * c + at % c]) * scale : T(0);
  }
};

}  // namespace
}  // namespace tandem::cuda

namespace tandem {
using namespace cuda;

void run(Cuda, const Permute& k) {
  const Shape& y = k.y.dims;
  Walk walk;
  for (int i = 0; i < y.rank(); ++i) walk.axis(y[i], along(k.x.dims, static_cast<int>(k.perm[i])).inner);
  copy_walked(walk, k.x, k.y);
}

void run(Cuda, const Expand& k) {
  const Shape& y = k.y.dims;
  Walk walk;
  for (int i = 0; i < y.rank(); ++i) walk.axis(y[i], broadcast_step(k.x.dims, y.rank(), i));
  copy_walked(walk, k.x, k.y);
}

void run(Cuda, const Slice& k) {
  const AxisView x = along(k.x.dims, k.axis), y = along(k.y.dims, k.axis);
  element_size(k.y.dtype, [&]<class T>(T) {
    for_elements(k.y.device, k.y.dims.numel(),
                 CopyBlocks<T>{k.x.as<T>() + k.begin * x.inner, k.y.as<T>(), y.extent * y.inner, x.extent * x.inner,
                               y.extent * y.inner});
  });
}

void run(Cuda, const Place& k) {
  const AxisView x = along(k.x.dims, k.axis), y = along(k.y.dims, k.axis);
  element_size(k.y.dtype, [&]<class T>(T) {
    for_elements(k.y.device, k.x.dims.numel(),
                 CopyBlocks<T>{k.x.as<T>(), k.y.as<T>() + k.begin * y.inner, x.extent * x.inner, x.extent * x.inner,
                               y.extent * y.inner});
  });
}

void run(Cuda, const GatherRows& k) {
  if (k.y.dims.numel() == 0) return;
  element_size(k.y.dtype, [&]<class T>(T) {
    for_elements(
        k.y.device, k.y.dims.numel(),
        GatherRow<T>{k.x.as<T>(), k.index.as<int32_t>(), k.y.as<T>(), k.x.dims[0], k.y.dims.numel() / k.y.dims[0]});
  });
}

void run(Cuda, const GatherRowsGrad& k) {
  if (k.dx.dims.numel() == 0) return;
  floating(k.dx.dtype, [&]<class T>(T) {
    for_elements(k.dx.device, k.dx.dims.numel(),
                 GatherRowGrad<T>{k.dy.as<T>(), k.index.as<int32_t>(), k.dx.as<T>(), k.index.dims[0],
                                  k.dx.dims.numel() / k.dx.dims[0]});
  });
}

void run(Cuda, const GatherImages& k) {
  const Shape& dims = k.y.dims;
  const int32_t h = static_cast<int32_t>(dims[1]), w = static_cast<int32_t>(dims[2]), c = static_cast<int32_t>(dims[3]);
  floating(k.y.dtype, [&]<class T>(T) {
    for_elements(k.y.device, dims.numel(),
                 GatherPixel<T>{k.images.as<uint8_t>(), k.index.as<int32_t>(), k.shifts.as<int32_t>(), k.y.as<T>(),
                                static_cast<T>(k.scale), k.images.dims[0], h, w, c, h * w * c});
  });
}

}  // namespace tandem
