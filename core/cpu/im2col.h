// Convolution as matrix products, for every dtype, group and window.
#pragma once

#include "tandem/core/cpu/kernel.h"

namespace tandem::TANDEM_BACKEND {

void im2col(const Conv& k);
void im2col(const ConvDx& k);
void im2col(const ConvDw& k);

}  // namespace tandem::TANDEM_BACKEND
