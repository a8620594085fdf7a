// Dataset: images (or any rows) with labels, in memory.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "tandem/core/tensor.h"

namespace tandem {

// x[N, ...] uint8 (served as x / 255) or floating (served as it is); y int32 [N].
// Copies share the elements; take() is a view.
struct Dataset {
  std::string name;  // "mnist", "digits": named by every result
  Tensor x, y;
  int64_t classes = 0;
  int64_t begin = 0, count = 0;  // the rows in use

  // A host's own arrays (handles, not copies). Throws ShapeError or ValueError: x has one axis, counts differ,
  // no rows, a wrong dtype, a label < 0 or >= classes (classes 0: one more than the largest label).
  static Dataset from(Tensor x, Tensor y, std::string name = "custom", int64_t classes = 0);

  int64_t size() const { return count; }
  Shape sample_shape() const;                    // without the batch axis
  Dataset take(int64_t first, int64_t n) const;  // rows [first, first + n); throws ValueError
};

// The last `validation` rows as the second part. Throws ValueError unless 0 < validation < size.
std::pair<Dataset, Dataset> split(const Dataset& data, int64_t validation);

}  // namespace tandem
