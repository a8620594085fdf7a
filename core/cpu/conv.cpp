// Convolution: which algorithm, on which images, by which threads. Chunks of images are independent, and within one
// no sum depends on the images beside it.
#include "tandem/core/conv_pack.h"
#include "tandem/core/cpu/conv_direct.h"
#include "tandem/core/cpu/conv_image.h"
#include "tandem/core/cpu/im2col.h"
#include "tandem/core/cpu/winograd.h"

namespace tandem::TANDEM_BACKEND {
namespace {

// Windows at the end of an odd extent of y look one pixel further in Winograd's algorithm.
Frame even(Frame frame, int64_t h, int64_t w) {
  frame.h += h % 2;
  frame.w += w % 2;
  return frame;
}

// All of dy that any phase sees.
Frame frame_of_phases(const Window& window, int64_t h, int64_t w) {
  int64_t top = 0, left = 0, bottom = 0, right = 0;
  for_phases(window, h, w, [&](const Phase& ph, const Phase& pw) {
    top = max(top, -ph.begin);
    left = max(left, -pw.begin);
    bottom = max(bottom, ph.begin + ph.count + ph.taps - 1);
    right = max(right, pw.begin + pw.count + pw.taps - 1);
  });
  return {top, left, top + bottom, left + right};
}

// ---- packed weights ----------------------------------------------------------------------------------------

void pack(const float* w, const Shape& dims, const Window& window, bool turned, float* packed) {
  const int64_t out = dims[0], taps = dims[1] * dims[2], in = dims[3];
  if (conv_algorithm(Dtype::float32, dims, window, 1) == ConvAlgorithm::winograd) {
    if (turned)
      pack_winograd(out, in, packed, [&](int64_t c, int64_t ky, int64_t kx, int64_t o) {
        return w[(o * 9 + 8 - ky * 3 - kx) * in + c];
      });
    else
      pack_winograd(in, out, packed,
                    [&](int64_t o, int64_t ky, int64_t kx, int64_t c) { return w[(o * 9 + ky * 3 + kx) * in + c]; });
    return;
  }
  if (!turned) {
    pack_blocks(taps * in, out, taps * in, packed, [&](int64_t k) { return w + k; });
    return;
  }
  for_phases(window, 1, 1, [&](const Phase& ph, const Phase& pw) {
    packed = pack_blocks(ph.taps * pw.taps * out, in, 1, packed, [&](int64_t k) {
      const int64_t tap = k / out, ky = ph.last - tap / pw.taps * ph.step, kx = pw.last - tap % pw.taps * pw.step;
      return w + ((k % out * dims[1] + ky) * dims[2] + kx) * in;
    });
  });
}

// The call's packed weights, or ours, valid until the next such call of this thread.
template <class Call>
const float* packed_weights(const Call& k, bool turned) {
  if (k.packed) return k.packed.template as<float>();
  float* packed = shared_scratch<float>(conv_packed_size(k.w.dtype, k.w.dims, k.window, k.groups, turned));
  pack(k.w.template as<float>(), k.w.dims, k.window, turned, packed);
  return packed;
}

// Of y = conv(x), where x is read from `images`.
Sliding sliding(const Geometry& g, const Images<float>& images, int64_t count) {
  const int64_t line = images.line();
  return {.images = count,
          .rows = g.out_h,
          .columns = g.out_w,
          .channels = g.out_c,
          .lines = g.window.kernel.h,
          .run = g.window.kernel.w * g.c,
          .x_image = images.image(),
          .x_row = g.window.stride.h * line,
          .x_pixel = g.window.stride.w * g.c,
          .x_line = line,
          .y_image = g.pixels() * g.out_c,
          .y_row = g.out_w * g.out_c,
          .y_pixel = g.out_c};
}

// What the windows of all output pixels see.
Frame frame_of(const Geometry& g) {
  const Window& window = g.window;
  return {window.padding.h, window.padding.w, (g.out_h - 1) * window.stride.h + window.kernel.h,
          (g.out_w - 1) * window.stride.w + window.kernel.w};
}

}  // namespace

void run(const ConvPack& k) { pack(k.w.as<float>(), k.w.dims, k.window, k.turned, k.packed.as<float>()); }

void run(const Conv& k) {
  const ConvAlgorithm algorithm = conv_algorithm(k.w.dtype, k.w.dims, k.window, k.groups);
  if (algorithm == ConvAlgorithm::im2col) return im2col(k);
  const Geometry g(k.x.dims, k.y.dims, k.window);
  const bool fast = algorithm == ConvAlgorithm::winograd;
  const Frame frame = fast ? even(frame_of(g), g.out_h, g.out_w) : frame_of(g);
  const Images<float> images(k.x.as<float>(), g.h, g.w, g.c, frame, Prologue<float>(k), fast && g.c % kLanes != 0);
  const float *packed = packed_weights(k, false), *bias = k.b.as<float>();
  const Sliding s = sliding(g, images, 1);
  const Chunking cut = chunking(k.x.dims);
  parallel_for(cut.chunks(), [&](int64_t chunk) {
    float* memory = scratch<float>(images.scratch(1) + (fast ? winograd_floats(g.c) : 0));
    for (int64_t n = cut.chunk_begin(chunk); n < cut.chunk_begin(chunk + 1); ++n) {
      const float* x = images.read(n, 1, memory);
      float* y = k.y.as<float>() + n * s.y_image;
      if (fast)
        winograd(s, x, packed, bias, y, memory + images.scratch(1));
      else
        convolve(s, x, packed, bias, y);
    }
  });
}

void run(const ConvDx& k) {
  const ConvAlgorithm algorithm = conv_algorithm(k.w.dtype, k.w.dims, k.window, k.groups);
  if (algorithm == ConvAlgorithm::im2col) return im2col(k);
  const Geometry g(k.dx.dims, k.dy.dims, k.window);
  const bool fast = algorithm == ConvAlgorithm::winograd;
  const Frame phases = frame_of_phases(k.window, g.h, g.w), frame = fast ? even(phases, g.h, g.w) : phases;
  const Images<float> images(k.dy.as<float>(), g.out_h, g.out_w, g.out_c, frame, {}, fast && g.out_c % kLanes != 0);
  const float* packed = packed_weights(k, true);
  const int64_t line = images.line();
  const Chunking cut = chunking(k.dx.dims);
  parallel_for(cut.chunks(), [&](int64_t chunk) {
    float* memory = scratch<float>(images.scratch(1) + (fast ? winograd_floats(g.out_c) : 0));
    for (int64_t n = cut.chunk_begin(chunk); n < cut.chunk_begin(chunk + 1); ++n) {
      const float *image = images.read(n, 1, memory), *w = packed;
      for_phases(k.window, g.h, g.w, [&](const Phase& ph, const Phase& pw) {
        const Sliding s{.images = 1,
                        .rows = ph.count,
                        .columns = pw.count,
                        .channels = g.c,
                        .lines = ph.taps,
                        .run = pw.taps * g.out_c,
                        .x_image = 0,
                        .x_row = line,
                        .x_pixel = g.out_c,
                        .x_line = line,
                        .y_image = 0,
                        .y_row = ph.stride * g.w * g.c,
                        .y_pixel = pw.stride * g.c};
        const float* dy = image + (frame.top + ph.begin) * line + (frame.left + pw.begin) * g.out_c;
        float* dx = k.dx.as<float>() + n * g.image() + (ph.first * g.w + pw.first) * g.c;
        if (fast)
          winograd(s, dy, w, nullptr, dx, memory + images.scratch(1));
        else
          convolve(s, dy, w, nullptr, dx);
        w += packed_floats(s.lines * s.run, g.c);
      });
    }
  });
}

void run(const ConvDw& k) {
  const Shape w = k.dw.dims.without(0);
  const ConvAlgorithm algorithm = conv_algorithm(k.dw.dtype, w, k.window, k.groups);
  if (algorithm == ConvAlgorithm::im2col) return im2col(k);
  const Geometry g(k.x.dims, k.dy.dims, k.window);
  const bool fast = algorithm == ConvAlgorithm::winograd;
  const Frame frame = fast ? even(frame_of(g), g.out_h, g.out_w) : frame_of(g);
  const bool whole_vectors = (fast ? 1 : k.window.kernel.w) * g.c % kLanes == 0;
  const Images<float> images(k.x.as<float>(), g.h, g.w, g.c, frame, Prologue<float>(k), !whole_vectors);
  const Chunking cut = chunking(k.x.dims);
  parallel_for(cut.lanes(), [&](int64_t lane) {
    const int64_t frames = images.scratch(cut.rows);
    float* memory = scratch<float>(frames + (fast ? winograd_dw_floats(sliding(g, images, cut.rows)) : 0));
    float* dw = k.dw.as<float>() + lane * w.numel();
    const int64_t lane_begin = cut.lane_begin(lane), lane_end = cut.lane_begin(lane + 1);
    for (int64_t begin = lane_begin; begin < lane_end; begin += cut.rows) {
      const int64_t count = min(cut.rows, lane_end - begin);
      const Sliding s = sliding(g, images, count);
      const float *x = images.read(begin, count, memory), *dy = k.dy.as<float>() + begin * s.y_image;
      const bool add = k.dw.add || begin > lane_begin;
      if (fast)
        winograd_dw(s, x, dy, add, dw, memory + frames);
      else
        convolve_dw(s, x, dy, add, dw);
    }
  });
}

}  // namespace tandem::TANDEM_BACKEND
