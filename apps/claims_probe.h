// What the claims about a layer are examined with.
#pragma once

#include <cmath>
#include <string>
#include <vector>

#include "claims.h"
#include "tandem/core/error.h"

namespace tandem {

using Values = std::vector<double>;

BatchNormLayerOptions float64_options(BatchNormLayerOptions options = {});
// float64 values of a normal distribution; the same for the same name.
Tensor normal(const Shape& shape, const std::string& name, double mean = 0, double std = 1);

Values values_of(const Tensor& x);
// Values of a layer's parameter or buffer; empty if it has none of that name.
Values state_of(Module& layer, const std::string& name);

// Of all parameters and buffers.
std::vector<Values> whole_state(Module& layer);

// NaN anywhere, or another size, makes it infinite.
double largest_difference(const Values& a, const Values& b);
double largest_difference(const Tensor& a, const Tensor& b);

// The text of the exception that f throws; empty if it throws none.
template <class F>
std::string refusal(const F& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

Verdict all_or_none(int yes, int of);   // holds, refuted, or in between with nuance
std::string within(double difference);  // "exactly", "to within 3e-16"
std::string yes_no(bool yes);

}  // namespace tandem
