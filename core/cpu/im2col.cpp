// Convolution as matrix products: the patches of a few images are laid out as rows (im2col), multiplied, and for
// the input's gradient added back (col2im). Two images at a time keep the patches in the L2 cache.
#include "tandem/core/cpu/im2col.h"

#include "tandem/core/blas.h"
#include "tandem/core/cpu/conv_image.h"

namespace tandem::TANDEM_BACKEND {
namespace {

struct ConvGeometry : Geometry {
  int64_t groups;

  ConvGeometry(const Shape& x, const Shape& y, const Window& window_, int64_t groups_)
      : Geometry(x, y, window_), groups(groups_) {}
  int64_t group_c() const { return c / groups; }
  int64_t group_out() const { return out_c / groups; }
  int64_t patch() const { return window.kernel.h * window.kernel.w * group_c(); }
  // Each patch is one pixel of x: no copy is needed.
  bool pointwise() const {
    return window.kernel.h * window.kernel.w == 1 && window.stride.h * window.stride.w == 1 &&
           window.padding.h + window.padding.w == 0;
  }
};

// For every patch of one image: begin(whether all of it lies inside), then f(position in the image of the group's
// first channel, position in the patch, values) for each contiguous run that it shares with the image.
template <class Begin, class F>
void for_patches(const ConvGeometry& g, const Begin& begin, const F& f) {
  const Window& window = g.window;
  const bool joined = window.dilation.w == 1 && g.groups == 1;  // neighbouring pixels make one run
  for (int64_t oy = 0; oy < g.out_h; ++oy) {
    const Range ky = g.rows(oy);
    for (int64_t ox = 0; ox < g.out_w; ++ox) {
      const Range kx = g.columns(ox);
      begin(ky.size() == window.kernel.h && kx.size() == window.kernel.w);
      const int64_t step = joined ? kx.size() : 1;
      for (int64_t i = ky.begin; i < ky.end; ++i) {
        const int64_t row = (g.top(oy) + i * window.dilation.h) * g.w + g.left(ox);
        for (int64_t j = kx.begin; j < kx.end; j += step) {
          f((row + j * window.dilation.w) * g.c, (i * window.kernel.w + j) * g.group_c(), step * g.group_c());
        }
      }
    }
  }
}

// cols[images * pixels, patch] of one group; `x` points to the group's first channel.
template <class T>
void im2col(const ConvGeometry& g, const T* x, int64_t images, T* cols) {
  const int64_t patch = g.patch();
  T* next = cols;
  for (int64_t n = 0; n < images; ++n, x += g.image()) {
    const auto begin = [&](bool whole) {
      cols = next;
      next += patch;
      if (!whole) std::memset(cols, 0, static_cast<size_t>(patch) * sizeof(T));
    };
    for_patches(g, begin, [&](int64_t from, int64_t to, int64_t count) {
      std::memcpy(cols + to, x + from, static_cast<size_t>(count) * sizeof(T));
    });
  }
}

// x += the patches, each where it came from.
template <class T>
void col2im(const ConvGeometry& g, const T* cols, int64_t images, T* x) {
  const T* next = cols;
  for (int64_t n = 0; n < images; ++n, x += g.image()) {
    const auto begin = [&](bool) {
      cols = next;
      next += g.patch();
    };
    for_patches(g, begin, [&](int64_t to, int64_t from, int64_t count) {
      TANDEM_INDEPENDENT
      for (int64_t i = 0; i < count; ++i) x[to + i] += cols[from + i];
    });
  }
}

// The patches of a few images as matrices of `ld` columns a row, one per group: in scratch memory, or x itself.
template <class T>
class Patches {
 public:
  Patches(const ConvGeometry& g, const T* x, int64_t images, const Prologue<T>& prologue) : g_(g), images_(images) {
    const int64_t size = images * g.image(), table = prologue.table();
    T* memory = scratch<T>((prologue ? table + size : 0) + (g.pointwise() ? 0 : images * g.pixels() * g.patch()));
    cols_ = memory;
    x_ = x;
    if (!prologue) return;
    prologue.prepare(memory);
    prologue.apply(x, images * g.h * g.w, g.c, memory, memory + table);
    x_ = memory + table;
    cols_ = memory + table + size;
  }
  int64_t ld() const { return g_.pointwise() ? g_.c : g_.patch(); }
  // Valid until the next call.
  const T* of_group(int64_t group) {
    const T* x = x_ + group * g_.group_c();
    if (g_.pointwise()) return x;
    im2col(g_, x, images_, cols_);
    return cols_;
  }

 private:
  const ConvGeometry& g_;
  int64_t images_;
  const T* x_;
  T* cols_;
};

}  // namespace

void im2col(const Conv& k) {
  const ConvGeometry g(k.x.dims, k.y.dims, k.window, k.groups);
  const Chunking cut = chunking(k.x.dims);
  floating(k.x.dtype, [&]<class T>(T) {
    parallel_for(cut.chunks(), [&](int64_t chunk) {
      const int64_t begin = cut.chunk_begin(chunk), images = cut.chunk_begin(chunk + 1) - begin;
      const int64_t rows = images * g.pixels();
      T* y = k.y.as<T>() + begin * g.pixels() * g.out_c;
      Patches<T> patches(g, k.x.as<T>() + begin * g.image(), images, Prologue<T>(k));
      for (int64_t group = 0; group < g.groups; ++group) {
        gemm(Gemm<T>{rows, g.group_out(), g.patch(), patches.of_group(group), patches.ld(), false,
                     k.w.as<T>() + group * g.group_out() * g.patch(), g.patch(), true, y + group * g.group_out(),
                     g.out_c});
      }
      const T* b = k.b.as<T>();
      for (int64_t row = 0; b && row < rows; ++row) {
        TANDEM_INDEPENDENT
        for (int64_t o = 0; o < g.out_c; ++o) y[row * g.out_c + o] += b[o];
      }
    });
  });
}

void im2col(const ConvDx& k) {
  const ConvGeometry g(k.dx.dims, k.dy.dims, k.window, k.groups);
  const Chunking cut = chunking(k.dx.dims);
  floating(k.dx.dtype, [&]<class T>(T) {
    parallel_for(cut.chunks(), [&](int64_t chunk) {
      const int64_t begin = cut.chunk_begin(chunk), images = cut.chunk_begin(chunk + 1) - begin;
      const int64_t rows = images * g.pixels();
      const T* dy = k.dy.as<T>() + begin * g.pixels() * g.out_c;
      T* dx = k.dx.as<T>() + begin * g.image();
      std::memset(dx, 0, static_cast<size_t>(images * g.image()) * sizeof(T));
      for (int64_t group = 0; group < g.groups; ++group) {
        T* into = dx + group * g.group_c();
        T* cols = g.pointwise() ? into : scratch<T>(rows * g.patch());
        gemm(Gemm<T>{rows, g.patch(), g.group_out(), dy + group * g.group_out(), g.out_c, false,
                     k.w.as<T>() + group * g.group_out() * g.patch(), g.patch(), false, cols,
                     g.pointwise() ? g.c : g.patch()});
        if (!g.pointwise()) col2im(g, cols, images, into);
      }
    });
  });
}

void im2col(const ConvDw& k) {
  const ConvGeometry g(k.x.dims, k.dy.dims, k.window, k.groups);
  const Chunking cut = chunking(k.x.dims);
  floating(k.dw.dtype, [&]<class T>(T) {
    parallel_for(cut.lanes(), [&](int64_t lane) {
      T* dw = k.dw.as<T>() + lane * g.out_c * g.patch();
      const int64_t lane_begin = cut.lane_begin(lane), lane_end = cut.lane_begin(lane + 1);
      for (int64_t begin = lane_begin; begin < lane_end; begin += cut.rows) {
        const int64_t images = min(cut.rows, lane_end - begin);
        const T* dy = k.dy.as<T>() + begin * g.pixels() * g.out_c;
        Patches<T> patches(g, k.x.as<T>() + begin * g.image(), images, Prologue<T>(k));
        for (int64_t group = 0; group < g.groups; ++group) {
          gemm(Gemm<T>{g.group_out(), g.patch(), images * g.pixels(), dy + group * g.group_out(), g.out_c, true,
                       patches.of_group(group), patches.ld(), false, dw + group * g.group_out() * g.patch(), g.patch(),
                       k.dw.add || begin > lane_begin});
        }
      }
    });
  });
}

}  // namespace tandem::TANDEM_BACKEND
