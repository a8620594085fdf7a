#include "tandem/layers/conv2d.h"

#include <fmt/format.h>

#include "tandem/core/error.h"

namespace tandem {

Conv2d::Conv2d(int64_t in, int64_t out, Conv2dLayerOptions o) : in_(in), out_(out), options_(o) {
  if (in < 1 || out < 1)
    throw ValueError(fmt::format("Conv2d: expected channels >= 1, got in = {}, out = {}", in, out));
  conv2d_window(o.kernel, op_options(), "Conv2d");  // for its checks
  if (o.groups < 1 || in % o.groups != 0 || out % o.groups != 0) {
    throw ValueError(
        fmt::format("Conv2d: groups must divide both channel counts, got {} for in = {}, out = {}", o.groups, in, out));
  }
  weight = empty({out, o.kernel.h, o.kernel.w, in / o.groups}, {o.dtype}).set_requires_grad(true);
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
  return conv2d_shape(x, weight.shape(), op_options(), label("Conv2d").c_str());
}

Tensor Conv2d::forward(const Tensor& x) {
  output_shape(x.shape());  // its checks name the layer
  return labelled("Conv2d", [&] { return conv2d(x, weight, bias, op_options()); });
}

std::string Conv2d::text() const {
  const Conv2dLayerOptions &o = options_, standard;
  std::string text = fmt::format("conv:{}", out_);
  if (o.kernel != standard.kernel) text += ":k=" + to_string(o.kernel);
  if (o.stride != standard.stride) text += ":s=" + to_string(o.stride);
  if (o.padding != standard.padding) text += ":p=" + to_string(o.padding);
  if (o.dilation != standard.dilation) text += ":d=" + to_string(o.dilation);
  if (o.groups != standard.groups) text += fmt::format(":g={}", o.groups);
  if (!o.bias) text += ":bias=off";
  if (o.init.kind != Init::Kind::he_normal) text += ":init=" + to_string(o.init);
  return text;
}

void Conv2d::members(MemberVisitor& v) {
  // Each output sees kh kw values of its group's inputs, each input feeds kh kw outputs of its group.
  const int64_t area = options_.kernel.h * options_.kernel.w;
  const int64_t fan_in = area * (in_ / options_.groups), fan_out = area * (out_ / options_.groups);
  v.parameter("weight", weight, Role::weight, options_.init, fan_in, fan_out);
  if (options_.bias) v.parameter("bias", bias, Role::bias, Init::zeros(), fan_in, fan_out);
}

std::unique_ptr<Module> Conv2d::clone() const { return copy_of(*this, in_, out_, options_); }

}  // namespace tandem
