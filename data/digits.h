// Built-in handwritten-like digits, for programs without any data: strokes, slant, thickness, elastic
// deformation, noise. Deterministic in the seed.
#pragma once

#include "tandem/data/dataset.h"

namespace tandem {

// x[n, 28, 28, 1] uint8, y in 0..9; name "digits". Sample i depends on (seed, i) alone. A linear model stays
// below 95 % on it.
Dataset make_digits(int64_t n, uint64_t seed);

}  // namespace tandem
