// GroupNorm (Wu and He 2018): every sample by itself, over its pixels and the channels of a group.
#pragma once

#include <string>

#include "tandem/layers/module.h"

namespace tandem {

struct GroupNormOptions {
  double eps = 1e-5;                // PyTorch's; Keras' is 1e-3
  bool scale = true, shift = true;  // gamma, beta
  Dtype dtype = Dtype::float32;
};

// x[N, ..., channels] -> the same shape. Parameters weight (gamma) and bias (beta) [channels], role norm. The same
// in training and eval. One group: over the whole sample; as many as channels: instance norm.
class GroupNorm : public Module {
 public:
  // Throws ValueError unless groups divides channels, or for options out of range.
  GroupNorm(int64_t groups, int64_t channels, GroupNormOptions options = {});

  Tensor weight, bias;

  Tensor forward(const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::string kind() const override { return "gn"; }
  std::string text() const override;
  void members(MemberVisitor& v) override;
  std::unique_ptr<Module> clone() const override;

 private:
  int64_t groups_, channels_;
  GroupNormOptions options_;
};

}  // namespace tandem
