// How far two runs that should be the same differ: the measure of an A/A check.
#pragma once

#include "compare.h"

namespace tandem {

// The largest difference over all losses, accuracies and final weights (parameters and buffers) of two runs of one
// network; 0 only if all agree exactly. Infinity if one lacks a number that the other has, or has a NaN there.
double run_difference(const ArmRun& a, Module& model_a, const ArmRun& b, Module& model_b);

}  // namespace tandem
