// What a Tensor handle points to; for tensor.cpp, autograd.cpp and reshape alone.
#pragma once

#include <memory>

#include "tandem/core/autograd.h"
#include "tandem/core/tensor.h"

namespace tandem {

struct Tensor::Impl {
  Shape shape;
  Dtype dtype;
  std::shared_ptr<Storage> storage;
  bool requires_grad = false;
  std::shared_ptr<Node> node;  // of the op that computed it; null for leaves
  Tensor grad;
  Tensor arriving;  // of a leaf: what the running backward has found of its gradient
  bool mostly_zero = false;
};

struct TensorAccess {
  static Tensor make(const Shape& shape, Dtype dtype, std::shared_ptr<Storage> storage) {
    return Tensor(std::make_shared<Tensor::Impl>(Tensor::Impl{shape, dtype, std::move(storage), false, {}, {}, {}}));
  }
  static const std::shared_ptr<Tensor::Impl>& impl(const Tensor& t) { return t.impl_; }
  // No other handle or view can see its elements.
  static bool unique(const Tensor& t) { return t.impl_.use_count() == 1 && t.impl_->storage.use_count() == 1; }
};

// An op's place in the graph. `grad` collects the output's gradient while a backward runs.
struct Node {
  struct Edge {
    std::shared_ptr<Node> node;          // the op that computed the input, or
    std::shared_ptr<Tensor::Impl> leaf;  // the leaf that collects a gradient; neither: nothing flows
    Shape shape;
    Dtype dtype;
    Device device;
  };
  const char* name;
  uint64_t sequence;
  std::vector<Edge> inputs;
  Vjp vjp;
  Tensor grad;
  bool freed = false;

  ~Node();
};

}  // namespace tandem
