// The layer of a case about batch norm.
#pragma once

#include "tandem/layers/batch_norm.h"
#include "vector_case.h"

namespace tandem::vectors {

// With its settings and starting values.
BatchNorm layer_of(const Case& c);
// Every tensor of its state, as float64.
std::vector<std::vector<double>> state_of(Module& layer);

}  // namespace tandem::vectors
