#include "tandem/layers/conv2d.h"

#include <fmt/format.h>

#include <algorithm>

#include "tandem/core/error.h"

namespace tandem {

static constexpr int64_t kMost = 1'000'000;  // so that no product of options overflows

Conv2d::Conv2d(int64_t in, int64_t out, Conv2dLayerOptions o) : in_(in), out_(out), options_(o) {
  if (in < 1 || out < 1)
    throw ValueError(fmt::format("Conv2d: expected channels >= 1, got in = {}, out = {}", in, out));
  if (std::min({o.kernel, o.stride, o.dilation}) < 1 || o.padding < 0 ||
      std::max({o.kernel, o.stride, o.dilation, o.padding}) > kMost) {
    throw ValueError(fmt::format(
        "Conv2d: expected kernel, stride and dilation in [1, {}] and padding in [0, {}], got kernel {}, stride {}, "
        "dilation {}, padding {}",
        kMost, kMost, o.kernel, o.stride, o.dilation, o.padding));
  }
  if (o.groups < 1 || in % o.groups != 0 || out % o.groups != 0) {
    throw ValueError(
        fmt::format("Conv2d: groups must divide both channel counts, got {} for in = {}, out = {}", o.groups, in, out));
  }
  weight = empty({out, o.kernel, o.kernel, in / o.groups}, {o.dtype}).set_requires_grad(true);
  if (o.bias) bias = empty({out}, {o.dtype}).set_requires_grad(true);
  init(seed());
}

Shape Conv2d::output_shape(const Shape& x) const {
  if (x.rank() != 4) {
    throw ShapeError(fmt::format("{}: expected x[N, H, W, {}], got x{} (4 axes vs {})", label("Conv2d"), in_,
                                 to_string(x), x.rank()));
  }
  if (x[3] != in_) {
    const char* hint = x[1] == in_ ? "; axis 1 fits: images are channels-last here, permute(x, {0, 2, 3, 1})" : "";
    throw ShapeError(fmt::format("{}: expected x[N, H, W, {}], got x{} ({} vs {} channels){}", label("Conv2d"), in_,
                                 to_string(x), in_, x[3], hint));
  }
  const Conv2dLayerOptions& o = options_;
  const int64_t window = o.dilation * (o.kernel - 1) + 1;
  const int64_t h = x[1] + 2 * o.padding, w = x[2] + 2 * o.padding;
  if (h < window || w < window) {
    throw ShapeError(fmt::format("{}: its window of {}x{} does not fit x{} with padding {} ({} vs {})", label("Conv2d"),
                                 window, window, to_string(x), o.padding, window, h < w ? h : w));
  }
  return {x[0], (h - window) / o.stride + 1, (w - window) / o.stride + 1, out_};
}

Tensor Conv2d::forward(const Tensor& x) {
  output_shape(x.shape());  // its checks name the layer
  return labelled("Conv2d", [&] {
    return conv2d(x, weight, bias,
                  {.stride = options_.stride,
                   .padding = options_.padding,
                   .dilation = options_.dilation,
                   .groups = options_.groups});
  });
}

std::string Conv2d::text() const {
  const Conv2dLayerOptions &o = options_, standard;
  std::string text = fmt::format("conv:{}", out_);
  if (o.kernel != standard.kernel) text += fmt::format(":k={}", o.kernel);
  if (o.stride != standard.stride) text += fmt::format(":s={}", o.stride);
  if (o.padding != standard.padding) text += fmt::format(":p={}", o.padding);
  if (o.dilation != standard.dilation) text += fmt::format(":d={}", o.dilation);
  if (o.groups != standard.groups) text += fmt::format(":g={}", o.groups);
  if (!o.bias) text += ":bias=off";
  if (o.init.kind != Init::Kind::he_normal) text += ":init=" + to_string(o.init);
  return text;
}

void Conv2d::members(MemberVisitor& v) {
  // Each output sees kernel^2 values of its group's inputs, each input feeds kernel^2 outputs of its group.
  const int64_t area = options_.kernel * options_.kernel;
  const int64_t fan_in = area * (in_ / options_.groups), fan_out = area * (out_ / options_.groups);
  v.parameter("weight", weight, Role::weight, options_.init, fan_in, fan_out);
  if (options_.bias) v.parameter("bias", bias, Role::bias, Init::zeros(), fan_in, fan_out);
}

std::unique_ptr<Module> Conv2d::clone() const { return copy_of(*this, in_, out_, options_); }

}  // namespace tandem
