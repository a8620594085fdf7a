#include "tandem/layers/dense.h"

#include <fmt/format.h>

#include "tandem/core/error.h"
#include "tandem/core/ops.h"

namespace tandem {

Dense::Dense(int64_t in, int64_t out, DenseOptions options) : in_(in), out_(out), options_(options) {
  if (in < 1 || out < 1) throw ValueError(fmt::format("Dense: expected sizes >= 1, got in = {}, out = {}", in, out));
  weight = empty({out, in}, {options.dtype}).set_requires_grad(true);
  if (options.bias) bias = empty({out}, {options.dtype}).set_requires_grad(true);
  init(seed());
}

void Dense::check(const Shape& x) const {
  if (x.rank() == 2 && x[1] == in_) return;
  const std::string why = x.rank() == 2 ? fmt::format("({} vs {})", in_, x[1])
                                        : fmt::format("(2 axes vs {}); put a Flatten before it", x.rank());
  throw ShapeError(fmt::format("{}: expected x[N, {}], got x{} {}", label("Dense"), in_, to_string(x), why));
}

Tensor Dense::forward(const Tensor& x) {
  check(x.shape());
  return labelled("Dense", [&] { return linear(x, weight, bias); });
}

Shape Dense::output_shape(const Shape& x) const {
  check(x);
  return {x[0], out_};
}

std::string Dense::text() const {
  std::string text = fmt::format("dense:{}", out_);
  if (!options_.bias) text += ":bias=off";
  if (options_.init.kind != Init::Kind::he_normal) text += ":init=" + to_string(options_.init);
  return text;
}

void Dense::members(MemberVisitor& v) {
  v.parameter("weight", weight, Role::weight, options_.init, in_, out_);
  if (options_.bias) v.parameter("bias", bias, Role::bias, Init::zeros(), in_, out_);
}

std::unique_ptr<Module> Dense::clone() const { return copy_of(*this, in_, out_, options_); }

}  // namespace tandem
