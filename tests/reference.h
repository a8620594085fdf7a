// Naive float64 references of every op: plain loops over indices, sharing nothing with Tandem's kernels.
#pragma once

#include <functional>
#include <vector>

#include "tandem/core/ops.h"

namespace tandem::test::reference {

// Row-major float64 values (also of labels and indices).
struct Array {
  Shape shape;
  std::vector<double> data;

  Array() = default;
  explicit Array(const Shape& shape) : shape(shape), data(shape.numel()) {}
  Array(const Shape& shape, std::vector<double> data) : shape(shape), data(std::move(data)) {}
};
using Index = std::vector<int64_t>;

double& at(Array& x, const Index& index);
double at(const Array& x, const Index& index);
// The same for an index in words: at(x, n, h, w, c).
template <class... I>
double at(const Array& x, int64_t first, I... rest) {
  int axis = 0;
  int64_t flat = first;
  ((flat = flat * x.shape[++axis] + rest), ...);
  return x.data[flat];
}
// Calls f with every index of `shape`, in row-major order.
void for_each_index(const Shape& shape, const std::function<void(const Index&)>& f);

// ---- elementwise, reductions, shape -----------------------------------------------------------------
Array map(const Array& x, const std::function<double(double)>& f);
Array map2(const Array& a, const Array& b, const std::function<double(double, double)>& f);
enum class Reduction { sum, mean, max };
Array reduce(const Array& x, Reduction kind, std::vector<int> axes, bool keep_dims);
Array reshape(const Array& x, const Shape& shape);
Array permute(const Array& x, const std::vector<int>& axes);
Array concat(const std::vector<Array>& parts, int axis);
Array slice(const Array& x, int axis, int64_t begin, int64_t end);
Array gather_rows(const Array& x, const Array& index);
Array expand(const Array& x, const Shape& shape);

// ---- products and images -----------------------------------------------------------------------------
Array matmul(const Array& a, const Array& b);
Array linear(const Array& x, const Array& weight, const Array& bias);  // a bias without elements is none
Array conv2d(const Array& x, const Array& weight, const Array& bias, const Conv2dOptions& options);
Array max_pool2d(const Array& x, const Pool2dOptions& options);
Array avg_pool2d(const Array& x, const Pool2dOptions& options);
Array global_avg_pool(const Array& x);

// ---- normalisation and losses --------------------------------------------------------------------------
struct Moments {
  std::vector<double> mean, var;  // per channel; the variance is biased
  int64_t count;                  // values of a channel
};
Moments moments(const Array& x, int channel_axis);
// (x - mean) / sqrt(var + eps) * gamma + beta; gamma and beta may have no elements.
Array normalize(const Array& x, const std::vector<double>& mean, const std::vector<double>& var, const Array& gamma,
                const Array& beta, double eps, int channel_axis);
Array softmax(const Array& x, int axis, bool log);
Array cross_entropy(const Array& logits, const Array& labels, const CrossEntropyOptions& options);

}  // namespace tandem::test::reference
