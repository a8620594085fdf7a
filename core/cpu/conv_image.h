// The images that a convolution reads: framed by zeros, so that no loop asks where the borders are, and through the
// call's prologue.
#pragma once

#include <cstring>

#include "tandem/core/cpu/batch_norm.h"
#include "tandem/core/window.h"

namespace tandem::TANDEM_BACKEND {

// What the values of x stand for: relu(batch_norm(x)), one of the two, or themselves. A value is the one that BnApply
// and Unary would have written.
template <class T>
class Prologue {
 public:
  Prologue() = default;
  template <class Call>
  explicit Prologue(const Call& k)
      : mean_(k.mean), rstd_(k.rstd), gamma_(k.gamma.template as<T>()), beta_(k.beta.template as<T>()), relu_(k.relu) {
    if (mean_) arithmetic<T>(mean_, rstd_, [&]<class P>(P) { narrow_ = std::is_same_v<P, float>; });
  }
  explicit operator bool() const { return mean_ || relu_; }

  // Elements of the table that apply needs, and that prepare fills.
  int64_t table() const {
    const int64_t columns = mean_ ? 4 * static_cast<int64_t>(sizeof(double) / sizeof(T)) : 0;
    return (columns * mean_.dims.numel() + 15) / 16 * 16;
  }
  void prepare(T* table) const {
    if (mean_) typed(table, [&](auto* to) { bn_fill(mean_, rstd_, gamma_, beta_, to); });
  }
  // y[pixels, channels] from x alike.
  void apply(const T* x, int64_t pixels, int64_t channels, T* table, T* y) const {
    if (!*this) {
      std::memcpy(y, x, static_cast<size_t>(pixels * channels) * sizeof(T));
    } else if (!mean_) {
      TANDEM_INDEPENDENT
      for (int64_t i = 0; i < pixels * channels; ++i) y[i] = scalar::unary<UnaryOp::relu>(x[i]);
    } else if (relu_) {
      const auto relu = [](T v) __attribute__((always_inline)) { return scalar::unary<UnaryOp::relu>(v); };
      normalize(x, pixels, table, y, relu);
    } else {
      normalize(
          x, pixels, table, y, [](T v) __attribute__((always_inline)) { return v; });
    }
  }

 private:
  // f(the table in the type that the channels want)
  template <class F>
  void typed(T* table, const F& f) const {
    if constexpr (std::is_same_v<T, float>) {
      if (narrow_) return f(table);
    }
    f(reinterpret_cast<double*>(table));
  }
  template <class F>
  void normalize(const T* x, int64_t pixels, T* table, T* y, const F& then) const {
    typed(table, [&]<class P>(P* columns) {
      for_pixels<4>(
          Constants<P>{columns, mean_.dims.numel()}, 0, pixels,
          y, [=](int64_t i, const Constants<P>& at) __attribute__((always_inline)) {
            return then(static_cast<T>(scalar::bn_apply(static_cast<P>(x[i]), scale<P>(at))));
          });
    });
  }

  View mean_, rstd_;
  const T *gamma_ = nullptr, *beta_ = nullptr;
  bool relu_ = false, narrow_ = false;
};

// The part of an image that is read: rows [-top, h - top), columns [-left, w - left). What lies outside the image is 0.
struct Frame {
  int64_t top, left, h, w;
};

// Images of a tensor [N, H, W, C] in frames. Where frame and prologue allow, these are the tensor's own.
template <class T>
class Images {
 public:
  // With `overread`, up to 15 values behind an image may be read as well.
  Images(const T* data, int64_t h, int64_t w, int64_t c, const Frame& frame, const Prologue<T>& prologue = {},
         bool overread = false)
      : data_(data), h_(h), w_(w), c_(c), frame_(frame), prologue_(prologue) {
    copied_ = overread || prologue_ || frame.top != 0 || frame.left != 0 || frame.h > h || frame.w > w;
  }

  int64_t pixel() const { return c_; }
  int64_t line() const { return (copied_ ? frame_.w : w_) * c_; }
  int64_t image() const { return copied_ ? whole_vectors(frame_.h * line()) : h_ * line(); }
  // The scratch memory that `read` needs, in elements; whole vectors.
  int64_t scratch(int64_t images) const {
    return copied_ ? whole_vectors(images * image() + prologue_.table() + 15) : 0;
  }

  // Images [begin, begin + count), image() apart: the first one's frame.
  const T* read(int64_t begin, int64_t count, T* memory) const {
    const T* x = data_ + begin * h_ * w_ * c_;
    if (!copied_) return x;
    prologue_.prepare(memory);
    T* frames = memory + prologue_.table();
    for (int64_t i = 0; i < count; ++i) copy(x + i * h_ * w_ * c_, memory, frames + i * image());
    return frames;
  }

 private:
  static int64_t whole_vectors(int64_t n) { return (n + 15) / 16 * 16; }

  void copy(const T* x, T* table, T* to) const {
    const int64_t left = min(max(0, frame_.left), frame_.w), right = max(left, min(frame_.w, frame_.left + w_));
    const int64_t first = min(max(0, frame_.top), frame_.h), last = max(first, min(frame_.h, frame_.top + h_));
    const auto clear = [&](int64_t begin, int64_t end) {  // positions in the frame
      std::memset(to + begin, 0, static_cast<size_t>(end - begin) * sizeof(T));
    };
    const int64_t line = frame_.w * c_;
    int64_t done = 0;
    for (int64_t row = first; left < right && row < last; ++row) {
      clear(done, row * line + left * c_);
      prologue_.apply(x + ((row - frame_.top) * w_ + left - frame_.left) * c_, right - left, c_, table,
                      to + row * line + left * c_);
      done = row * line + right * c_;
    }
    clear(done, frame_.h * line);
  }

  const T* data_;
  int64_t h_, w_, c_;
  Frame frame_;
  Prologue<T> prologue_;
  bool copied_;
};

}  // namespace tandem::TANDEM_BACKEND
