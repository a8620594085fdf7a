// The tape: what an op records so that backward can find its gradient.
//
// A Node belongs to one output tensor and holds its inputs and a vjp (vector-Jacobian product): given the
// output's gradient, it returns one gradient per input (empty where none is needed) and changes nothing.
// Backward visits nodes by falling sequence number; neither it nor freeing a graph recurses.
#pragma once

#include <functional>
#include <initializer_list>
#include <memory>
#include <utility>
#include <vector>

#include "tandem/core/tensor.h"

namespace tandem {

using Grads = std::vector<Tensor>;
using Vjp = std::function<Grads(const Tensor& dy)>;

// Off in this thread while a NoGrad lives: ops record nothing.
class NoGrad {
 public:
  NoGrad();
  ~NoGrad();
  NoGrad(const NoGrad&) = delete;
  NoGrad& operator=(const NoGrad&) = delete;

 private:
  bool before_;
};
bool grad_enabled();

// A tensor kept for a vjp: detached from the graph (so no cycle can form), and refused with a ValueError
// at use if its storage was changed in place since.
class Saved {
 public:
  explicit Saved(const Tensor& tensor) {
    if (!tensor.defined()) return;  // an absent option stays one
    tensor_ = tensor.detach();
    version_ = tensor.version();
  }
  operator View() const { return checked(); }
  operator const Tensor&() const { return checked(); }
  const Tensor& checked() const;

 private:
  Tensor tensor_;
  uint64_t version_ = 0;
};
inline Saved save(const Tensor& tensor) { return Saved(tensor); }

// True when an op on these inputs must record: gradients are on and an input needs one.
bool needs_record(const Tensor* inputs, size_t count);
Tensor record_node(const char* name, Tensor y, const Tensor* inputs, size_t count, Vjp vjp);

// Marks y, a tensor fresh from the op, as computed from `inputs` by the op `name` (a literal), if gradients are
// on and an input needs one. Returns y. This is also how a user's own op joins the graph.
template <class F>
Tensor record(const char* name, Tensor y, std::initializer_list<Tensor> inputs, F&& vjp) {
  if (!needs_record(inputs.begin(), inputs.size())) return y;
  return record_node(name, std::move(y), inputs.begin(), inputs.size(), Vjp(std::forward<F>(vjp)));
}
template <class F>
Tensor record(const char* name, Tensor y, const std::vector<Tensor>& inputs, F&& vjp) {
  if (!needs_record(inputs.data(), inputs.size())) return y;
  return record_node(name, std::move(y), inputs.data(), inputs.size(), Vjp(std::forward<F>(vjp)));
}

}  // namespace tandem
