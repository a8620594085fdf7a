// A model without its batch norms, for inference.
#pragma once

#include <memory>

#include "tandem/layers/sequential.h"

namespace tandem {

// A new model in eval mode, in which every BatchNorm that follows a Dense or Conv2d has gone into its weight and bias:
// with k = gamma / sqrt(running_var + eps), weight' = k weight and bias' = k (bias - running_mean) + beta, computed in
// float64. Its outputs equal those of the model in eval mode up to rounding. Batch norms elsewhere, without running
// statistics, or whose channels are not the layer's outputs stay; so do all names. The model itself is not changed; layers
// that stay are cloned, so a Module of one's own needs clone() (ValueError).
std::unique_ptr<Sequential> fold(Sequential& model);

}  // namespace tandem
