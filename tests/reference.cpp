#include "reference.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

namespace tandem::test::reference {
namespace {

size_t offset(const Shape& shape, const Index& index) {
  int64_t flat = 0;
  for (int axis = 0; axis < shape.rank(); ++axis) flat = flat * shape[axis] + index[axis];
  return flat;
}

int positive(int axis, int rank) { return axis < 0 ? axis + rank : axis; }

// The index into an array of `shape` that meets `index` when broadcast: aligned at the end, 0 where it is 1.
Index broadcast_index(const Shape& shape, const Index& index) {
  Index result(shape.rank());
  const size_t skipped = index.size() - result.size();
  for (int axis = 0; axis < shape.rank(); ++axis) {
    result[axis] = shape[axis] == 1 ? 0 : index[skipped + axis];
  }
  return result;
}

Shape broadcast_shape(const Shape& a, const Shape& b) {
  std::vector<int64_t> dims(std::max(a.rank(), b.rank()));
  for (size_t i = 0; i < dims.size(); ++i) {  // from the end
    const int ia = a.rank() - 1 - static_cast<int>(i), ib = b.rank() - 1 - static_cast<int>(i);
    const int64_t da = ia < 0 ? 1 : a[ia], db = ib < 0 ? 1 : b[ib];
    dims[dims.size() - 1 - i] = da == 1 ? db : da;
  }
  return Shape(dims);
}

}  // namespace

double& at(Array& x, const Index& index) { return x.data[offset(x.shape, index)]; }
double at(const Array& x, const Index& index) { return x.data[offset(x.shape, index)]; }

void for_each_index(const Shape& shape, const std::function<void(const Index&)>& f) {
  Index index(shape.rank(), 0);
  for (int64_t i = 0; i < shape.numel(); ++i) {
    f(index);
    for (int axis = shape.rank() - 1; axis >= 0; --axis) {
      if (++index[axis] < shape[axis]) break;
      index[axis] = 0;
    }
  }
}

Array map(const Array& x, const std::function<double(double)>& f) {
  Array y(x.shape);
  std::transform(x.data.begin(), x.data.end(), y.data.begin(), f);
  return y;
}

Array map2(const Array& a, const Array& b, const std::function<double(double, double)>& f) {
  Array y(broadcast_shape(a.shape, b.shape));
  for_each_index(y.shape, [&](const Index& i) {
    at(y, i) = f(at(a, broadcast_index(a.shape, i)), at(b, broadcast_index(b.shape, i)));
  });
  return y;
}

Array reduce(const Array& x, Reduction kind, std::vector<int> axes, bool keep_dims) {
  const int rank = x.shape.rank();
  if (axes.empty()) {
    axes.resize(rank);
    std::iota(axes.begin(), axes.end(), 0);
  }
  Shape kept = x.shape;
  int64_t count = 1;
  for (int axis : axes) {
    count *= x.shape[positive(axis, rank)];
    kept = kept.with(positive(axis, rank), 1);
  }
  Array y(kept);
  if (kind == Reduction::max) y.data.assign(y.data.size(), -std::numeric_limits<double>::infinity());
  for_each_index(x.shape, [&](const Index& i) {
    double& target = at(y, broadcast_index(kept, i));
    target = kind == Reduction::max ? std::max(target, at(x, i)) : target + at(x, i);
  });
  if (kind == Reduction::mean) {
    for (double& v : y.data) v /= static_cast<double>(count);
  }
  if (keep_dims) return y;
  std::vector<int64_t> dims;
  for (int axis = 0; axis < rank; ++axis) {
    const bool reduced = std::any_of(axes.begin(), axes.end(), [&](int a) { return positive(a, rank) == axis; });
    if (!reduced) dims.push_back(x.shape[axis]);
  }
  return {Shape(dims), y.data};
}

Array reshape(const Array& x, const Shape& shape) { return {shape, x.data}; }

Array permute(const Array& x, const std::vector<int>& axes) {
  const int rank = x.shape.rank();
  std::vector<int64_t> dims;
  for (int axis : axes) dims.push_back(x.shape[positive(axis, rank)]);
  Array y{Shape(dims)};
  for_each_index(y.shape, [&](const Index& i) {
    Index from(i.size());
    for (size_t k = 0; k < axes.size(); ++k) from[positive(axes[k], rank)] = i[k];
    at(y, i) = at(x, from);
  });
  return y;
}

Array concat(const std::vector<Array>& parts, int axis) {
  axis = positive(axis, parts[0].shape.rank());
  int64_t extent = 0;
  for (const Array& part : parts) extent += part.shape[axis];
  Array y(parts[0].shape.with(axis, extent));
  int64_t begin = 0;
  for (const Array& part : parts) {
    for_each_index(part.shape, [&](Index i) {
      const double value = at(part, i);
      i[axis] += begin;
      at(y, i) = value;
    });
    begin += part.shape[axis];
  }
  return y;
}

Array slice(const Array& x, int axis, int64_t begin, int64_t end) {
  axis = positive(axis, x.shape.rank());
  Array y(x.shape.with(axis, end - begin));
  for_each_index(y.shape, [&](Index i) {
    double& target = at(y, i);
    i[axis] += begin;
    target = at(x, i);
  });
  return y;
}

Array gather_rows(const Array& x, const Array& index) {
  Array y(x.shape.with(0, index.shape[0]));
  for_each_index(y.shape, [&](Index i) {
    double& target = at(y, i);
    i[0] = static_cast<int64_t>(index.data[i[0]]);
    target = at(x, i);
  });
  return y;
}

Array expand(const Array& x, const Shape& shape) {
  Array y(shape);
  for_each_index(shape, [&](const Index& i) { at(y, i) = at(x, broadcast_index(x.shape, i)); });
  return y;
}

Array softmax(const Array& x, int axis, bool log) {
  const Array largest = reduce(x, Reduction::max, {axis}, true);
  const Array shifted = map2(x, largest, std::minus<>());
  const Array total = reduce(map(shifted, [](double v) { return std::exp(v); }), Reduction::sum, {axis}, true);
  return map2(shifted, total, [log](double v, double t) { return log ? v - std::log(t) : std::exp(v) / t; });
}

Array cross_entropy(const Array& logits, const Array& labels, const CrossEntropyOptions& options) {
  const Array log_p = softmax(logits, 1, true);
  const int64_t classes = logits.shape[1];
  Array loss(Shape{logits.shape[0]});
  for_each_index(logits.shape, [&](const Index& i) {
    const bool is_label = i[1] == static_cast<int64_t>(labels.data[i[0]]);
    const double target =
        (1 - options.label_smoothing) * is_label + options.label_smoothing / static_cast<double>(classes);
    loss.data[i[0]] -= target * at(log_p, i);
  });
  if (options.reduction == tandem::Reduction::none) return loss;
  return reduce(loss, options.reduction == tandem::Reduction::sum ? Reduction::sum : Reduction::mean, {}, false);
}

}  // namespace tandem::test::reference
