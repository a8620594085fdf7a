// BatchNorm: per-channel normalisation (Ioffe and Szegedy 2015), in PyTorch's or Keras' convention.
#pragma once

#include <string>

#include "tandem/core/moments.h"
#include "tandem/core/ops.h"
#include "tandem/layers/module.h"

namespace tandem {

// PyTorch's numbers by default.
struct BatchNormLayerOptions {
  double eps = 1e-5;
  Momentum momentum = {0.1};
  bool unbiased_running_var = true;  // which variance the running one averages; Keras: the biased one
  bool scale = true, shift = true;   // gamma, beta
  bool zero_scale = false;           // gamma starts at 0 instead of 1: a residual branch then starts as nothing
  bool track_running_stats = true;   // without: eval uses the batch's statistics too
  int channel_axis = -1;             // -1, the last, or 1 to 4: 1 for channels-first data
  bool allow_one_value = false;      // one value per channel in training gives beta (Keras), not an error
  bool frozen = false;               // see BatchNorm::freeze
  int min_rank = 2, max_rank = 5;    // of x
  Dtype dtype = Dtype::float32;

  // Keras' numbers: eps 1e-3, biased running variance, one value per channel allowed.
  static BatchNormLayerOptions keras(double momentum = 0.99);
};

// x of 2 to 5 axes with `channels` along channel_axis -> the same shape. Parameters weight (gamma) and bias
// (beta), role norm; buffers running_mean, running_var, num_batches_tracked: PyTorch's names. A running
// mean or variance that would not be finite stays as it is, and the first time a warning names the layer.
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

  // Uses the running statistics from now on, in training too, and keeps them, gamma and beta as they are; train() does
  // not undo it, and files and clones stay frozen. Throws ValueError if there are no running statistics.
  void freeze();
  void unfreeze();
  bool is_frozen() const { return options_.frozen; }
  const BatchNormLayerOptions& options() const { return options_; }

  // With a mask, of x's shape without the channel axis: see batch_norm in core/ops.h.
  Tensor forward(const Tensor& x, const Tensor& mask);
  Tensor forward(const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::string kind() const override { return "bn"; }
  std::string text() const override;
  void members(MemberVisitor& v) override;
  std::unique_ptr<Module> clone() const override;

 protected:
  void on_init() override;  // running statistics as new: mean 0, variance 1, 0 batches

 private:
  friend struct Recalibration;  // layers/recalibrate.cpp
  void check_channels(const Shape& x) const;
  void check_batch(const Shape& x) const;
  void warn_of_skipped(int64_t skipped);
  int64_t channels_;
  BatchNormLayerOptions options_;
  Tensor skipped_;             // int64: updates of a channel's running statistics that were left out
  bool warned_ = false;        // of them; once a layer
  Moments* gather_ = nullptr;  // while recalibrating: takes in what the layer sees
};

// PyTorch's names: the ranks that they take and PyTorch's numbers. The layout is Tandem's, channels last, unless
// channel_axis says otherwise.
struct BatchNorm1d : BatchNorm {  // [N, C], [N, L, C]
  explicit BatchNorm1d(int64_t channels, BatchNormLayerOptions options = {});
};
struct BatchNorm2d : BatchNorm {  // [N, H, W, C]
  explicit BatchNorm2d(int64_t channels, BatchNormLayerOptions options = {});
};
struct BatchNorm3d : BatchNorm {  // [N, D, H, W, C]
  explicit BatchNorm3d(int64_t channels, BatchNormLayerOptions options = {});
};

}  // namespace tandem
