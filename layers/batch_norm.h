// BatchNorm: per-channel normalisation (Ioffe and Szegedy 2015), in PyTorch's or Keras' convention.
#pragma once

#include <string>

#include "tandem/core/ops.h"
#include "tandem/layers/module.h"

namespace tandem {

// PyTorch's numbers by default.
struct BatchNormLayerOptions {
  double eps = 1e-5;
  Momentum momentum = {0.1};
  bool unbiased_running_var = true;  // which variance the running one averages; Keras: the biased one
  bool scale = true, shift = true;   // gamma, beta
  bool track_running_stats = true;   // without: eval uses the batch's statistics too
  int channel_axis = -1;             // -1, the last, or 1 to 4: 1 for channels-first data
  bool allow_one_value = false;      // one value per channel in training gives beta (Keras), not an error
  Dtype dtype = Dtype::float32;

  // Keras' numbers: eps 1e-3, biased running variance, one value per channel allowed.
  static BatchNormLayerOptions keras(double momentum = 0.99);
};

// x of 2 to 5 axes with `channels` along channel_axis -> the same shape. Parameters weight (gamma) and bias
// (beta), role norm; buffers running_mean, running_var, num_batches_tracked: PyTorch's names.
class BatchNorm : public Module {
 public:
  // Throws ValueError for options out of range. forward throws ShapeError, before anything changes, for the
  // wrong number of channels and for a batch with too few values per channel.
  explicit BatchNorm(int64_t channels, BatchNormLayerOptions options = {});
  // eps 1e-5, momentum 0.1 (weight of the new), unbiased running variance.
  static BatchNorm pytorch(int64_t channels, double momentum = 0.1);
  // BatchNormLayerOptions::keras: momentum is the weight of the old.
  static BatchNorm keras(int64_t channels, double momentum = 0.99);

  Tensor weight, bias, running_mean, running_var, num_batches_tracked;

  Tensor forward(const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::string kind() const override { return "bn"; }
  std::string text() const override;
  void members(MemberVisitor& v) override;
  std::unique_ptr<Module> clone() const override;

 protected:
  void on_init() override;  // running statistics as new: mean 0, variance 1, 0 batches

 private:
  void check_channels(const Shape& x) const;
  void check_batch(const Shape& x) const;
  int64_t channels_;
  BatchNormLayerOptions options_;
};

}  // namespace tandem
