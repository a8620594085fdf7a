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
  explicit Saved(const Tensor& tensor) : tensor_(tensor.detach()), version_(tensor.version()) {}
  operator View() const { return checked(); }
  operator const Tensor&() const { return checked(); }
  const Tensor& checked() const;

 private:
  Tensor tensor_;
  uint64_t version_;
};
inline Saved save(const Tensor& tensor) { return Saved(tensor); }

// Marks y as computed from `inputs` by the op `name` (a literal), if gradients are on and some input needs
// one. Returns y. This is also how a user's own op joins the graph.
Tensor record(const char* name, Tensor y, const std::vector<Tensor>& inputs, Vjp vjp);

}  // namespace tandem
