// The float32 convolutions against the float64 ones, and what their callers rely on beyond the values: a prologue, a
// slice, packed weights and threads change no byte.
#include <fmt/format.h>

#include <cmath>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/conv_pack.h"
#include "tandem/core/dispatch.h"
#include "tandem/core/ops.h"
#include "tandem/core/threads.h"

using namespace tandem;
using namespace tandem::test;

namespace {

struct Layer {
  Shape x;
  int64_t out;
  Window window;
  int64_t groups = 1;

  Shape w() const { return {out, window.kernel.h, window.kernel.w, x[3] / groups}; }
  Shape y() const {
    const auto extent = [](int64_t n, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation) {
      return (n + 2 * padding - dilation * (kernel - 1) - 1) / stride + 1;
    };
    const Window& v = window;
    return {x[0], extent(x[1], v.kernel.h, v.stride.h, v.padding.h, v.dilation.h),
            extent(x[2], v.kernel.w, v.stride.w, v.padding.w, v.dilation.w), out};
  }
  std::string name() const {
    return fmt::format("x{}, {} channels, kernel {}, stride {}, padding {}, {} groups", to_string(x), out,
                       to_string(window.kernel), to_string(window.stride), to_string(window.padding), groups);
  }
};

// Operands of a layer, and what the kernels make of them.
struct Call {
  explicit Call(const Layer& l, Dtype dtype = Dtype::float32)
      : layer(l),
        x(random(l.x, 1).to(dtype)),
        w(random(l.w(), 2).to(dtype)),
        b(random({l.out}, 3).to(dtype)),
        dy(random(l.y(), 4).to(dtype)),
        y(full(l.y(), NAN, {dtype})),
        dx(full(l.x, NAN, {dtype})),
        dw(full(l.w().insert(0, chunking(l.x).lanes()), NAN, {dtype})) {}

  Call& run() {
    launch(Conv{x, w, b, y, layer.window, layer.groups});
    launch(ConvDx{dy, w, dx, layer.window, layer.groups});
    launch(ConvDw{dy, x, dw, layer.window, layer.groups});
    return *this;
  }
  std::vector<Tensor> results() const { return {y, dx, sum(dw, {0})}; }

  Layer layer;
  Tensor x, w, b, dy, y, dx, dw;
};

// The largest difference, in units of the root mean square of `want`.
double error(const Tensor& got, const Tensor& want) {
  const std::vector<double> a = values(got), b = values(want);
  double largest = 0, squares = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    if (!(std::fabs(a[i] - b[i]) <= largest)) largest = std::fabs(a[i] - b[i]);
    squares += b[i] * b[i];
  }
  return squares > 0 ? largest / std::sqrt(squares / static_cast<double>(b.size())) : largest;
}

// Every algorithm, with edges of all kinds.
std::vector<Layer> some_layers() {
  return {
      {{5, 13, 14, 33}, 17, {3, 1, 1, 1}},  {{5, 7, 7, 64}, 64, {3, 2, 1, 1}},    {{3, 9, 28, 1}, 32, {3, 1, 1, 1}},
      {{5, 14, 14, 32}, 64, {3, 1, 0, 1}},  {{3, 9, 8, 3}, 6, {5, 1, 2, 1}},      {{4, 6, 6, 16}, 16, {1, 1, 0, 1}},
      {{3, 8, 7, 16}, 18, {3, 1, 1, 1}, 2}, {{2, 9, 9, 4}, 8, {3, 1, 2, {2, 1}}},
  };
}

Tensor rows(const Tensor& x, int64_t begin, int64_t end) { return slice(x, 0, begin, end); }

}  // namespace

TEST_CASE("float32 convolutions of any shape equal the float64 ones", "[ops]") {
  const int64_t channels[] = {1, 2, 3, 7, 16, 17, 31, 32, 33, 64, 130};
  const Size2 images[] = {1, 2, 3, {5, 4}, 7, 13, 14, {5, 28}};
  const Size2 kernels[] = {1, 3, 5, {2, 3}}, strides[] = {1, 2, {1, 2}}, paddings[] = {0, 1, 2, {0, 1}};
  const int64_t batches[] = {1, 2, 3, 5};
  size_t i = 0, checked = 0;
  const auto next = [&](const auto& from) { return from[i * 2654435761u % 4294967296u / 7919 % std::size(from)]; };
  for (const Size2 image : images) {
    for (const Size2 kernel : kernels) {
      for (const Size2 stride : strides) {
        for (int repeat = 0; repeat < 5; ++repeat, ++i) {
          const Size2 padding = paddings[i % 4];
          if (image.h + 2 * padding.h < kernel.h || image.w + 2 * padding.w < kernel.w) continue;
          const int64_t in = channels[i * 7 % 11];
          const Shape x{batches[i % 3 + i % 2], image.h, image.w, in};
          const Layer layer{x, next(channels), {kernel, stride, padding, 1}};
          if (layer.y().numel() * layer.w().numel() / layer.out > 20'000'000) continue;
          INFO(layer.name());
          const std::vector<Tensor> got = Call(layer).run().results();
          const std::vector<Tensor> want = Call(layer, Dtype::float64).run().results();
          for (size_t k = 0; k < 3; ++k) CHECK(error(got[k], want[k]) < 1e-5);
          ++checked;
        }
      }
    }
  }
  CHECK(checked > 300);
}

TEST_CASE("A convolution's prologue gives the bytes of the separate calls", "[ops]") {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64}) {
    for (const Layer& layer : some_layers()) {
      Call separate(layer, dtype), joined(layer, dtype);
      const int64_t c = layer.x[3];
      const Tensor mean = random({c}, 5, Dtype::float64);
      const Tensor gamma = random({c}, 7, dtype), beta = random({c}, 8, dtype), none;
      for (const double scale : {0.0, 1.0, 1e13}) {  // the last is more than float32 constants may have
        const bool normalize = scale > 0;
        const Tensor rstd = random({c}, 6, Dtype::float64, 0.5 * scale, 2 * scale);
        for (const bool relu : {false, true}) {
          INFO(layer.name() << (normalize ? ", batch norm" : "") << (relu ? ", relu" : ""));
          Tensor z = empty_like(separate.x);
          if (normalize)
            launch(BnApply{joined.x, mean, rstd, gamma, beta, z, 3});
          else
            z = joined.x;
          separate.x = empty_like(z);
          if (relu)
            launch(Unary{z, separate.x, UnaryOp::relu});
          else
            separate.x = z;
          separate.run();
          const Tensor m = normalize ? mean : none, r = normalize ? rstd : none;
          const Tensor g = normalize ? gamma : none, b = normalize ? beta : none;
          launch(
              Conv{joined.x, joined.w, joined.b, joined.y, layer.window, layer.groups, Math::fp32, m, r, g, b, relu});
          launch(ConvDw{joined.dy, joined.x, joined.dw, layer.window, layer.groups, Math::fp32, m, r, g, b, relu});
          CHECK((bytes(joined.y) == bytes(separate.y)));
          CHECK((bytes(joined.dw) == bytes(separate.dw)));
        }
      }
    }
  }
}

TEST_CASE("Two images at a time give a convolution's bytes of the whole batch", "[ops]") {
  for (Layer layer : some_layers()) {
    INFO(layer.name());
    const int64_t n = 19;
    layer.x = layer.x.with(0, n);
    const Call whole = std::move(Call(layer).run());
    const Chunking cut = chunking(layer.x);
    Tensor dw = full(whole.dw.shape(), NAN);
    for (int64_t begin = 0, lane = -1; begin < n; begin += cut.rows) {
      const int64_t end = std::min(n, begin + cut.rows);
      const Tensor x = rows(whole.x, begin, end), dy = rows(whole.dy, begin, end);
      Tensor y = empty_like(dy), dx = empty_like(x);
      launch(Conv{x, whole.w, whole.b, y, layer.window, layer.groups});
      launch(ConvDx{dy, whole.w, dx, layer.window, layer.groups});
      CHECK((bytes(y) == bytes(rows(whole.y, begin, end))));
      CHECK((bytes(dx) == bytes(rows(whole.dx, begin, end))));
      const bool first = begin == cut.lane_begin(lane + 1);
      lane += first;
      View sum = dw;
      sum.dims = layer.w().insert(0, 1);
      sum.data = sum.as<float>() + lane * layer.w().numel();
      launch(ConvDw{dy, x, {sum, !first}, layer.window, layer.groups});
    }
    CHECK((bytes(dw) == bytes(whole.dw)));
  }
}

TEST_CASE("Packed weights change no byte of a convolution", "[ops]") {
  for (const Layer& layer : some_layers()) {
    INFO(layer.name());
    const Call plain = std::move(Call(layer).run());
    const auto pack = [&](bool turned) {
      const int64_t size = conv_packed_size(Dtype::float32, layer.w(), layer.window, layer.groups, turned);
      Tensor packed;
      if (size > 0) launch(ConvPack{plain.w, packed = full({size}, NAN), layer.window, turned});
      return packed;
    };
    Tensor y = empty_like(plain.y), dx = empty_like(plain.dx);
    launch(
        Conv{plain.x, plain.w, plain.b, y, layer.window, layer.groups, Math::fp32, {}, {}, {}, {}, false, pack(false)});
    launch(ConvDx{plain.dy, plain.w, dx, layer.window, layer.groups, Math::fp32, pack(true)});
    CHECK((bytes(y) == bytes(plain.y)));
    CHECK((bytes(dx) == bytes(plain.dx)));
  }
}

TEST_CASE("Convolutions give the same bytes on any number of threads", "[ops]") {
  const int before = threads();
  for (Layer layer : some_layers()) {
    INFO(layer.name());
    layer.x = layer.x.with(0, 19);
    set_threads(1);
    const Call alone = std::move(Call(layer).run());
    for (const int n : {2, 3, 8}) {
      set_threads(n);
      const Call several = std::move(Call(layer).run());
      CHECK((bytes(several.y) == bytes(alone.y) && bytes(several.dx) == bytes(alone.dx)));
      CHECK((bytes(several.dw) == bytes(alone.dw)));
    }
  }
  set_threads(before);
}
