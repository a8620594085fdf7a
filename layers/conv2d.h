// Conv2d: cross-correlation over channels-last images.
#pragma once

#include <string>

#include "tandem/core/ops.h"
#include "tandem/layers/module.h"

namespace tandem {

struct Conv2dLayerOptions {
  Size2 kernel = 3, stride = 1, padding = 0, dilation = 1;
  int64_t groups = 1;
  bool bias = true;
  Init init = Init::he_normal();
  Dtype dtype = Dtype::float32;
};

// x[N, H, W, in] -> y[N, H', W', out]; Conv2d(32, 64, {.kernel = 3, .stride = 2, .padding = 1}).
// weight[out, kh, kw, in / groups] (role weight), bias[out] (role bias).
class Conv2d : public Module {
 public:
  Conv2d(int64_t in, int64_t out, Conv2dLayerOptions options = {});  // throws ValueError for sizes that make no sense

  Tensor weight, bias;
  const Conv2dLayerOptions& options() const { return options_; }

  Tensor forward(const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::string kind() const override { return "conv"; }
  std::string text() const override;
  void members(MemberVisitor& v) override;
  std::unique_ptr<Module> clone() const override;

 private:
  Conv2dOptions op_options() const { return {options_.stride, options_.padding, options_.dilation, options_.groups}; }

  int64_t in_, out_;
  Conv2dLayerOptions options_;
};

}  // namespace tandem
