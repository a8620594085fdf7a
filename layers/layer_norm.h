// LayerNorm (Ba, Kiros and Hinton 2016): every sample by itself, over its last axes.
#pragma once

#include <string>

#include "tandem/layers/module.h"

namespace tandem {

struct LayerNormOptions {
  double eps = 1e-5;                // PyTorch's; Keras' is 1e-3
  bool scale = true, shift = true;  // gamma, beta
  Dtype dtype = Dtype::float32;
};

// x that ends with the axes `normalized` -> the same shape. Parameters weight (gamma) and bias (beta) of that
// shape, role norm. The same in training and eval: there are no running statistics.
class LayerNorm : public Module {
 public:
  // Throws ValueError for no axes, an axis of 0, or options out of range.
  explicit LayerNorm(const Shape& normalized, LayerNormOptions options = {});
  explicit LayerNorm(int64_t features, LayerNormOptions options = {}) : LayerNorm(Shape{features}, options) {}

  Tensor weight, bias;

  Tensor forward(const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::string kind() const override { return "ln"; }
  std::string text() const override;
  void members(MemberVisitor& v) override;
  std::unique_ptr<Module> clone() const override;

 private:
  Shape normalized_;
  LayerNormOptions options_;
};

}  // namespace tandem
