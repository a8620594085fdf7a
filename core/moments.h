// Mean and variance of each channel, in float64, of data that come in parts.
#pragma once

#include <vector>

#include "tandem/core/tensor.h"

namespace tandem {

struct Moments {
  double count = 0;          // values of each channel; 0: mean and m2 may be empty
  std::vector<double> mean;  // [C]
  std::vector<double> m2;    // [C]: sums of squared deviations from the mean; m2 / count is the biased variance
};

// Of x's values along each index of `channel_axis`, in two passes; with a mask, of x's shape without that axis, those
// where it is not 0. Copies the result to the host. x floating, of at least 2 axes; throws ShapeError or ValueError.
Moments moments(const Tensor& x, int channel_axis = -1, const Tensor& mask = {});

// Of both parts together: Chan, Golub and LeVeque 1979, equation 2.1. Throws ShapeError if their channels differ.
Moments merge(const Moments& a, const Moments& b);

}  // namespace tandem
