// Gradients by central differences.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tandem/core/tensor.h"

namespace tandem::test {

// A fixed vector v for vector-Jacobian products v^T dy/dx: values in [0.5, 1.5) of both signs.
Tensor probe(const Tensor& y);

// The gradients of sum(probe(y) * y) with respect to the inputs that require one (empty for the others).
std::vector<Tensor> gradients(const std::function<Tensor(const std::vector<Tensor>&)>& f,
                              const std::vector<Tensor>& inputs);

// Compares them with four-point central differences of the float64 function `f`, element by element: relative
// error below 1e-6 (of the larger of the two, or of a thousandth of the input's largest gradient). Returns
// the worst mismatch in words, or "" if there is none.
std::string gradcheck(const std::function<Tensor(const std::vector<Tensor>&)>& f, const std::vector<Tensor>& inputs);

}  // namespace tandem::test
