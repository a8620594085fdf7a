// Layers without parameters that keep the shape: ReLU, Sigmoid, Tanh, Dropout.
#pragma once

#include <string>

#include "tandem/core/ops.h"
#include "tandem/layers/module.h"

namespace tandem {

// y = L::op(x), elementwise.
template <class L>
class Activation : public Module {
 public:
  Tensor forward(const Tensor& x) override {
    return labelled(L::kType, [&] { return L::op(x); });
  }
  Shape output_shape(const Shape& x) const override { return x; }
  std::string kind() const override { return L::kKind; }
  std::string text() const override { return L::kKind; }
  std::unique_ptr<Module> clone() const override { return copy_of(static_cast<const L&>(*this)); }
};

struct ReLU : Activation<ReLU> {
  static constexpr const char *kType = "ReLU", *kKind = "relu";
  static Tensor op(const Tensor& x) { return relu(x); }
};

struct Sigmoid : Activation<Sigmoid> {
  static constexpr const char *kType = "Sigmoid", *kKind = "sigmoid";
  static Tensor op(const Tensor& x) { return sigmoid(x); }
};

struct Tanh : Activation<Tanh> {
  static constexpr const char *kType = "Tanh", *kKind = "tanh";
  static Tensor op(const Tensor& x) { return tanh(x); }
};

// In training, zeroes each element with probability p and scales the rest by 1 / (1 - p); nothing in eval.
// Masks come from the stream "dropout/<layer name>" of the model's seed and the number of the call: a layer
// elsewhere, or evaluating more often, changes none of them. init() starts again with call 0.
class Dropout : public Module {
 public:
  explicit Dropout(double p = 0.5);  // throws ValueError unless 0 <= p < 1
  Tensor forward(const Tensor& x) override;
  Shape output_shape(const Shape& x) const override { return x; }
  std::string kind() const override { return "dropout"; }
  std::string text() const override;
  void members(MemberVisitor& v) override { v.buffer("call", call_, false); }
  std::unique_ptr<Module> clone() const override;

 protected:
  void on_init() override { call_.fill(0); }

 private:
  double p_;
  Tensor call_;  // int64: calls in training so far
};

}  // namespace tandem
