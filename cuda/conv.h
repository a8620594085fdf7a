// What the three products of a convolution share: windows that slide over images, and the batch norm that x may still
// have to pass.
#pragma once

#include "tandem/core/window.h"
#include "tandem/cuda/conv_tile.h"

namespace tandem::cuda {

// ---- what x stands for --------------------------------------------------------------------------------------------

// relu(batch_norm(x)), one of the two, or x: the values that BnApply and Unary would write. The constants of a channel
// are columns of [4, channels]: mean, rest, k, beta; `narrow` of float32, and `wide` of float64 for channels that
// float32 does not carry, whose narrow `rest` is a NaN.
template <class T>
struct Prologue {
  const double* wide = nullptr;
  const float* narrow = nullptr;
  int channels = 0;
  bool relu = false;

  TANDEM_DEVICE bool changes() const { return wide || relu; }

  // Of adjacent channels from `channel` on.
  template <int kCount>
  TANDEM_DEVICE void apply(const Block& block, int channel, T (&x)[kCount]) const {
    if (wide) normalize(block, channel, x);
    if (!relu) return;
    TANDEM_UNROLL
    for (int i = 0; i < kCount; ++i) x[i] = scalar::unary<UnaryOp::relu>(x[i]);
  }

 private:
  TANDEM_DEVICE double widely(double x, int channel) const {
    const double* s = wide + channel;
    return scalar::bn_apply(x, scalar::BnScale<double>{s[0], s[channels], s[2 * channels], s[3 * channels]});
  }
  TANDEM_DEVICE void normalize(const Block&, int channel, double (&x)[1]) const { x[0] = widely(x[0], channel); }
  template <int kCount>
  TANDEM_DEVICE void normalize(const Block& block, int channel, float (&x)[kCount]) const {
    float s[4][kCount];
    TANDEM_UNROLL
    for (int column = 0; column < 4; ++column) {
      const float* from = narrow + column * channels + channel;
      if constexpr (kCount == 4) block.load4(from, s[column]);
      if constexpr (kCount == 1) s[column][0] = *from;
    }
    bool carried = true;
    float raw[kCount];
    TANDEM_UNROLL
    for (int i = 0; i < kCount; ++i) {
      raw[i] = x[i];
      carried = carried && s[1][i] == s[1][i];
      x[i] = scalar::bn_apply(x[i], scalar::BnScale<float>{s[0][i], s[1][i], s[2][i], s[3][i]});
    }
    if (carried) return;
    TANDEM_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (s[1][i] != s[1][i]) x[i] = static_cast<float>(widely(static_cast<double>(raw[i]), channel + i));
    }
  }
};

template <class T>
struct FillPrologue {
  const double *mean, *rstd;
  const T *gamma, *beta;
  double* wide;
  float* narrow;
  int channels;

  template <class P>
  TANDEM_DEVICE void fill(int64_t c, P* to, bool carried) const {
    const scalar::BnScale<P> s = scalar::bn_scale<P>(mean[c], rstd[c], gamma ? static_cast<double>(gamma[c]) : 1.0,
                                                     beta ? static_cast<double>(beta[c]) : 0.0);
    to[c] = s.mean;
    to[channels + c] = carried ? s.rest : static_cast<P>(__builtin_nan(""));
    to[2 * channels + c] = s.k;
    to[3 * channels + c] = s.beta;
  }
  TANDEM_DEVICE void operator()(int64_t c) const {
    fill(c, wide, true);
    fill(c, narrow, bn_fits_float(mean[c], rstd[c]));
  }
};

// The doubles that a call's prologue needs.
template <class Call>
int64_t prologue_size(const Call& k) {
  return k.mean ? 6 * k.mean.dims.numel() : 0;
}
template <class T, class Call>
Prologue<T> prologue(const Call& k, double* memory) {
  const int64_t channels = k.x.dims[3];
  if (!k.mean) return {nullptr, nullptr, static_cast<int>(channels), k.relu};
  float* narrow = reinterpret_cast<float*>(memory + 4 * channels);
  for_elements(k.x.device, channels,
               FillPrologue<T>{k.mean.template as<double>(), k.rstd.template as<double>(), k.gamma.template as<T>(),
                               k.beta.template as<T>(), memory, narrow, static_cast<int>(channels)});
  return {memory, narrow, static_cast<int>(channels), k.relu};
}

// ---- windows ------------------------------------------------------------------------------------------------------

// The value at `offset` of memory, or four from there on; none where that is negative: 0.
template <class T, int kCount>
TANDEM_DEVICE bool load_at(const Block& block, const T* memory, int offset, T (&to)[kCount]) {
  TANDEM_UNROLL
  for (int i = 0; i < kCount; ++i) to[i] = 0;
  if (offset < 0) return false;
  if constexpr (kCount == 4) block.load4(memory + offset, to);
  if constexpr (kCount == 1) to[0] = memory[offset];
  return true;
}

// Along one axis: window q < count begins at first + q * stride of an image's `extent`; its place j < places is
// j * hop further.
struct SlidingAxis {
  int extent;
  Divider count;
  int first, stride;
  Divider places;
  int hop;
};

// A matrix whose rows are windows and whose columns are places times channels of a group; outside the images it is 0.
template <class T>
struct Windows {
  const T* images;
  SlidingAxis y, x;
  int channels, first_channel, rows, columns;
  Divider depth;  // channels of a group

  // Where a window begins, or where a place is in it: offsets in elements and in pixels. Beyond the last, y is far
  // outside.
  struct Where {
    int offset, y, x, channel;
  };
  static constexpr int kOutside = -(1 << 30);

  TANDEM_DEVICE Where window(int i) const {
    if (i >= rows) return {0, kOutside, 0, 0};
    const int left = x.first + x.count.take(i) * x.stride, top = y.first + y.count.take(i) * y.stride;
    return {((i * y.extent + top) * x.extent + left) * channels, top, left, 0};
  }
  TANDEM_DEVICE Where place(int i) const {
    if (i >= columns) return {0, kOutside, 0, 0};
    const int channel = first_channel + depth.take(i), right = x.places.take(i) * x.hop, down = i * y.hop;
    return {(down * x.extent + right) * channels + channel, down, right, channel};
  }
  // One channel, or four adjacent ones.
  template <int kCount>
  TANDEM_DEVICE bool load(const Block& block, const Where& a, const Where& b, T (&to)[kCount]) const {
    const bool inside = static_cast<unsigned>(a.y + b.y) < static_cast<unsigned>(y.extent) &&
                        static_cast<unsigned>(a.x + b.x) < static_cast<unsigned>(x.extent);
    return load_at(block, images, inside ? a.offset + b.offset : -1, to);
  }
};

// The matrix of windows, or transposed, as a source of factors.
template <class T, bool kTransposed, bool kFinish_>
struct Patches {
  using Value = T;
  using Line = typename Windows<T>::Where;
  static constexpr bool kAlongK = !kTransposed, kFinish = kFinish_;
  Windows<T> windows;
  Prologue<T> prologue;

  TANDEM_DEVICE Line line(int i) const { return kTransposed ? windows.place(i) : windows.window(i); }
  TANDEM_DEVICE Line step(int k) const { return kTransposed ? windows.window(k) : windows.place(k); }
  template <int kCount>
  TANDEM_DEVICE bool load(const Block& block, const Line& line, const Line& step, T (&to)[kCount]) const {
    return windows.load(block, line, step, to);
  }
  TANDEM_DEVICE bool finishes() const { return prologue.changes(); }
  template <int kCount>
  TANDEM_DEVICE void finish(const Block& block, const Line& line, const Line& step, T (&x)[kCount]) const {
    prologue.apply(block, kTransposed ? line.channel : step.channel, x);
  }
};

// A matrix in memory as a source of factors.
template <class T, bool kAlongK_>
struct Matrix {
  using Value = T;
  using Line = int;
  static constexpr bool kAlongK = kAlongK_, kFinish = false;
  const T* memory;
  int lines, line_stride, steps, step_stride;

  TANDEM_DEVICE int line(int i) const { return i; }
  TANDEM_DEVICE int step(int k) const { return k; }
  template <int kCount>
  TANDEM_DEVICE bool load(const Block& block, int i, int k, T (&to)[kCount]) const {
    return load_at(block, memory, i < lines && k < steps ? i * line_stride + k * step_stride : -1, to);
  }
};

// ---- shapes -------------------------------------------------------------------------------------------------------

inline bool aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

// A call's geometry, and what the kernels ask of the shapes and addresses.
struct ConvShape : Geometry {
  int64_t groups, group_c, group_out, places;

  ConvShape(const Shape& x_dims, const Shape& y_dims, const Window& window_, int64_t groups_)
      : Geometry(x_dims, y_dims, window_),
        groups(groups_),
        group_c(c / groups_),
        group_out(out_c / groups_),
        places(window_.kernel.h * window_.kernel.w) {
    if (places * group_c * out_c >> 31 != 0)
      throw DeviceError("cuda: conv2d expects weights of fewer than 2^31 elements");
  }
  // The most elements that an image has, on either side, its padding included: offsets stay below 2^31.
  int64_t frame() const { return (h + 2 * window.padding.h) * (w + 2 * window.padding.w) * max(1, max(c, out_c)); }
  // Whether neighbouring channels of these can be read four at a time.
  template <class T>
  bool vectors(const T* a, const T* b) const {
    return sizeof(T) == 4 && group_c % 4 == 0 && group_out % 4 == 0 && aligned(a) && aligned(b);
  }

  // The windows of `images`, whose data are x.
  template <class T>
  Windows<T> windows(const T* x, int64_t images) const {
    const auto axis = [](int64_t extent, int64_t count, int64_t padding, int64_t stride, int64_t kernel, int64_t hop) {
      return SlidingAxis{static_cast<int>(extent), Divider(max(1, count)), static_cast<int>(-padding),
                         static_cast<int>(stride), Divider(kernel),        static_cast<int>(hop)};
    };
    return {x,
            axis(h, out_h, window.padding.h, window.stride.h, window.kernel.h, window.dilation.h),
            axis(w, out_w, window.padding.w, window.stride.w, window.kernel.w, window.dilation.w),
            static_cast<int>(c),
            0,
            static_cast<int>(images * pixels()),
            static_cast<int>(places * group_c),
            Divider(max(1, group_c))};
  }
};

}  // namespace tandem::cuda
