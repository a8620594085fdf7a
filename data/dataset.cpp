#include "tandem/data/dataset.h"

#include <fmt/format.h>

#include <algorithm>

#include "tandem/core/error.h"

namespace tandem {

Dataset Dataset::from(Tensor x, Tensor y, std::string name, int64_t classes) {
  if (!x.defined() || !y.defined()) throw ValueError("Dataset: expected x and y, got an empty tensor");
  const std::string got = describe("x", x) + " and " + describe("y", y);
  if (x.rank() < 2 || y.rank() != 1 || x.dim(0) != y.dim(0)) {
    throw ShapeError(fmt::format("Dataset: expected x[N, ...] and y[N], got {}", got));
  }
  if (x.dtype() != Dtype::uint8 && !is_floating(x.dtype())) {
    throw ValueError(fmt::format("Dataset: expected x of uint8, float32 or float64, got {}", name_of(x.dtype())));
  }
  if (y.dtype() != Dtype::int32) {
    throw ValueError(
        fmt::format("Dataset: expected y of int32, got {}; convert it with to(Dtype::int32)", name_of(y.dtype())));
  }
  if (x.numel() == 0) throw ValueError(fmt::format("Dataset: expected at least one row and element, got {}", got));
  if (x.dim(0) > INT32_MAX) throw ValueError(fmt::format("Dataset: expected at most 2^31 - 1 rows, got {}", got));
  const std::vector<int32_t> labels = y.to_vector<int32_t>();
  const int32_t most = *std::max_element(labels.begin(), labels.end());
  if (classes == 0) classes = most + int64_t{1};
  for (size_t i = 0; i < labels.size(); ++i) {
    if (labels[i] < 0 || labels[i] >= classes) {
      throw ValueError(fmt::format("Dataset: expected labels in [0, {}), got y[{}] = {}", classes, i, labels[i]));
    }
  }
  const int64_t rows = x.dim(0);
  return {std::move(name), x.detach(), y.detach(), classes, 0, rows};
}

Shape Dataset::sample_shape() const { return x.shape().without(0); }

Dataset Dataset::take(int64_t first, int64_t n) const {
  if (first < 0 || n < 1 || first >= count || n > count - first) {
    throw ValueError(fmt::format("Dataset: expected a part of the {} rows, got {} rows from row {}", count, n, first));
  }
  Dataset part = *this;
  part.begin += first;
  part.count = n;
  return part;
}

std::pair<Dataset, Dataset> split(const Dataset& data, int64_t validation) {
  if (validation <= 0 || validation >= data.count) {
    throw ValueError(
        fmt::format("split: expected 1 to {} validation rows of {}, got {}", data.count - 1, data.count, validation));
  }
  return {data.take(0, data.count - validation), data.take(data.count - validation, validation)};
}

}  // namespace tandem
