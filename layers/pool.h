// Layers without parameters that change the shape: Flatten, MaxPool2d, AvgPool2d, GlobalAvgPool.
#pragma once

#include <string>

#include "tandem/core/ops.h"
#include "tandem/layers/module.h"

namespace tandem {

// [N, ...] -> [N, product]: images in H, W, C order.
class Flatten : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::string kind() const override { return "flatten"; }
  std::string text() const override { return "flatten"; }
  std::unique_ptr<Module> clone() const override { return copy_of(*this); }
};

// [N, H, W, C] -> [N, H', W', C]. Padding is at most half the window. Throws ValueError for other options.
class MaxPool2d : public Module {
 public:
  explicit MaxPool2d(Pool2dOptions options = {});
  Tensor forward(const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::string kind() const override { return "maxpool"; }
  std::string text() const override;
  std::unique_ptr<Module> clone() const override { return copy_of(*this, options_); }

 private:
  Pool2dOptions options_;
};

class AvgPool2d : public Module {
 public:
  explicit AvgPool2d(Pool2dOptions options = {});
  Tensor forward(const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::string kind() const override { return "avgpool"; }
  std::string text() const override;
  std::unique_ptr<Module> clone() const override { return copy_of(*this, options_); }

 private:
  Pool2dOptions options_;
};

// [N, H, W, C] -> [N, C]: the mean over H and W.
class GlobalAvgPool : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::string kind() const override { return "gap"; }
  std::string text() const override { return "gap"; }
  std::unique_ptr<Module> clone() const override { return copy_of(*this); }
};

}  // namespace tandem
