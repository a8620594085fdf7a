#include "tandem/layers/fold.h"

#include <cmath>
#include <typeinfo>

#include "tandem/layers/batch_norm.h"
#include "tandem/layers/conv2d.h"
#include "tandem/layers/dense.h"

namespace tandem {
namespace {

std::vector<double> values_of(const Tensor& x, size_t count, double otherwise) {
  return x.defined() ? x.to(Dtype::float64).to_vector<double>() : std::vector<double>(count, otherwise);
}

// `layer`, which computes what `norm` normalises, with norm's work done by its weight and bias.
template <class L>
std::unique_ptr<Module> folded(const L& layer, std::unique_ptr<L> result, const BatchNorm& norm) {
  const size_t outputs = static_cast<size_t>(layer.weight.dim(0));
  std::vector<double> weight = values_of(layer.weight, 0, 0), bias = values_of(layer.bias, outputs, 0);
  const std::vector<double> gamma = values_of(norm.weight, outputs, 1), beta = values_of(norm.bias, outputs, 0);
  const std::vector<double> mean = values_of(norm.running_mean, 0, 0), var = values_of(norm.running_var, 0, 0);
  const size_t fan_in = weight.size() / outputs;
  for (size_t o = 0; o < outputs; ++o) {
    const double spread = std::sqrt(var[o] + norm.options().eps), k = spread > 0 ? gamma[o] / spread : 0;
    for (size_t i = 0; i < fan_in; ++i) weight[o * fan_in + i] *= k;
    bias[o] = k * (bias[o] - mean[o]) + beta[o];
  }
  result->weight.set_data(
      Tensor::from(weight, layer.weight.shape()).to(layer.weight.dtype()).to(layer.weight.device()));
  result->bias.set_data(Tensor::from(bias, {layer.weight.dim(0)}).to(layer.weight.dtype()).to(layer.weight.device()));
  return result;
}

// The layer if it is an L itself: a user's subclass may compute something else.
template <class L, class M>
L* exactly(M& module) {
  return typeid(module) == typeid(L) ? static_cast<L*>(&module) : nullptr;
}

// Null where the two do not fold.
std::unique_ptr<Module> folded(const Module& layer, const Module& next) {
  const BatchNorm* norm = exactly<const BatchNorm>(next);
  if (!norm) norm = exactly<const BatchNorm1d>(next);
  if (!norm) norm = exactly<const BatchNorm2d>(next);
  if (!norm || !norm->running_mean.defined()) return nullptr;
  const NoInit no_init;
  const auto fits = [&](const Tensor& weight, int rank) {
    const int axis = norm->options().channel_axis;
    return weight.dim(0) == norm->running_mean.numel() && (axis == -1 || axis == rank - 1);
  };
  if (const auto* dense = exactly<const Dense>(layer); dense && fits(dense->weight, 2)) {
    const Shape& shape = dense->weight.shape();
    return folded(*dense, std::make_unique<Dense>(shape[1], shape[0], DenseOptions{.dtype = dense->weight.dtype()}),
                  *norm);
  }
  if (const auto* conv = exactly<const Conv2d>(layer); conv && fits(conv->weight, 4)) {
    Conv2dLayerOptions options = conv->options();
    options.bias = true;
    const Shape& shape = conv->weight.shape();
    return folded(*conv, std::make_unique<Conv2d>(shape[3] * options.groups, shape[0], options), *norm);
  }
  return nullptr;
}

}  // namespace

std::unique_ptr<Sequential> fold(Sequential& model) {
  auto result = std::make_unique<Sequential>();
  const auto layers = model.children();
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto& [name, module] = layers[i];
    std::unique_ptr<Module> layer;
    if (auto* inner = exactly<Sequential>(*module)) {
      layer = fold(*inner);
    } else if (i + 1 < layers.size()) {
      layer = folded(*module, *layers[i + 1].second);
      if (layer) ++i;  // the batch norm is in it
    }
    if (!layer) layer = module->clone();
    result->append(std::move(layer), name, true);
  }
  result->eval();
  return result;
}

}  // namespace tandem
