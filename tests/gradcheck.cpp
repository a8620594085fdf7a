#include "gradcheck.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "helpers.h"
#include "tandem/core/autograd.h"
#include "tandem/core/random.h"

namespace tandem::test {
namespace {

using Function = std::function<Tensor(const std::vector<Tensor>&)>;
constexpr double kStep = 5e-4, kTolerance = 1e-6;

double objective(const Function& f, const std::vector<Tensor>& inputs) {
  const NoGrad no_grad;
  const Tensor y = f(inputs);
  const std::vector<double> v = values(probe(y)), out = values(y);
  double total = 0;
  for (size_t i = 0; i < v.size(); ++i) total += v[i] * out[i];
  return total;
}

// d objective / d inputs[which][i], to fourth order in the step.
double difference(const Function& f, std::vector<Tensor> inputs, size_t which, size_t i) {
  auto moved = [&](double step) {
    std::vector<double> x = inputs[which].to_vector<double>();
    x[i] += step;
    std::vector<Tensor> other = inputs;
    other[which] = Tensor::from(x, inputs[which].shape(), inputs[which].device());
    return objective(f, other);
  };
  return (8 * (moved(kStep) - moved(-kStep)) - (moved(2 * kStep) - moved(-2 * kStep))) / (12 * kStep);
}

}  // namespace

Tensor probe(const Tensor& y) {
  Tensor v = random(y.shape(), 99, Dtype::float64, -1, 1);
  for (int64_t i = 0; i < v.numel(); ++i) {
    double& value = v.mutable_data<double>()[i];
    value = std::copysign(0.5 + std::fabs(value), value);
  }
  return v.to(y.dtype()).to(y.device());
}

std::vector<Tensor> gradients(const Function& f, const std::vector<Tensor>& inputs) {
  for (Tensor x : inputs) {
    if (x.defined()) x.zero_grad();
  }
  const Tensor y = f(inputs);
  if (y.requires_grad()) y.backward(probe(y));
  std::vector<Tensor> grads;
  for (const Tensor& x : inputs) grads.push_back(x.defined() ? x.grad() : Tensor());
  return grads;
}

std::string gradcheck(const Function& f, const std::vector<Tensor>& inputs) {
  const std::vector<Tensor> grads = gradients(f, inputs);
  std::string worst;
  double worst_error = kTolerance;
  for (size_t which = 0; which < inputs.size(); ++which) {
    if (!inputs[which].defined() || !inputs[which].requires_grad()) continue;
    if (!grads[which].defined()) return fmt::format("input {} got no gradient", which);
    if (grads[which].shape() != inputs[which].shape())
      return fmt::format("the gradient of input {} has another shape", which);
    const std::vector<double> analytic = values(grads[which]);
    double largest = 0;
    for (double g : analytic) largest = std::max(largest, std::fabs(g));
    for (size_t i = 0; i < analytic.size(); ++i) {
      const double numeric = difference(f, inputs, which, i);
      const double scale = std::max({std::fabs(numeric), std::fabs(analytic[i]), largest / 1000, 1e-4});
      const double error = std::fabs(numeric - analytic[i]) / scale;
      if (error < worst_error) continue;  // a NaN is never smaller
      worst =
          fmt::format("input {}, element {}: the gradient is {}, central differences give {} (relative error {:.1e})",
                      which, i, analytic[i], numeric, error);
      worst_error = std::isnan(error) ? HUGE_VAL : error;
    }
  }
  return worst;
}

}  // namespace tandem::test
