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

// What MaxPool2d and AvgPool2d share: [N, H, W, C] -> [N, H', W', C]. Padding is at most half the window.
class Pool2d : public Module {
 public:
  Tensor forward(const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::string kind() const override { return kind_; }
  std::string text() const override;

 protected:
  using Op = Tensor(const Tensor& x, const Pool2dOptions& options);
  Pool2d(const char* type, const char* kind, Op* op, const Pool2dOptions& options);

  Pool2dOptions options_;

 private:
  const char *type_, *kind_;
  Op* op_;
};

class MaxPool2d : public Pool2d {
 public:
  // Throws ValueError for options out of range.
  explicit MaxPool2d(Pool2dOptions options = {}) : Pool2d("MaxPool2d", "maxpool", max_pool2d, options) {}
  std::unique_ptr<Module> clone() const override { return copy_of(*this, options_); }
};

class AvgPool2d : public Pool2d {
 public:
  explicit AvgPool2d(Pool2dOptions options = {});  // throws ValueError for a dilation other than 1, too
  std::string text() const override;
  std::unique_ptr<Module> clone() const override { return copy_of(*this, options_); }
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
