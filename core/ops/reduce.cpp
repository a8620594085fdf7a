#include "tandem/core/ops/check.h"

namespace tandem {
namespace {

// x's shape with the reduced axes (all when empty) as 1, and as the caller sees it: without them unless keep_dims.
struct Reduced {
  Shape kept, visible;
};
Reduced reduced(const char* op, const Tensor& x, const std::vector<int>& axes, bool keep_dims) {
  bool named[kMaxRank] = {};
  for (int a : axes)
    if (std::exchange(named[x.shape().axis(a, op)], true))
      throw ShapeError(fmt::format("{}: axis {} is named twice for {}", op, a, describe("x", x)));
  Reduced to{x.shape(), x.shape()};
  for (int i = x.rank() - 1; i >= 0; --i) {
    if (!named[i] && !axes.empty()) continue;
    to.kept = to.kept.with(i, 1);
    to.visible = keep_dims ? to.kept : to.visible.without(i);
  }
  return to;
}

Tensor reduce(const Tensor& x, const Shape& kept, ReduceOp op) {
  Tensor y = empty(kept, {x.dtype(), x.device()});
  launch(Reduce{x, y, op});
  return y;
}

}  // namespace

Tensor sum_to(const Tensor& dy, const Shape& shape) {
  if (dy.shape() == shape) return dy;
  const int extra = dy.rank() - shape.rank();
  Shape kept = dy.shape();
  for (int i = 0; i < dy.rank(); ++i)
    if (i < extra || shape[i - extra] == 1) kept = kept.with(i, 1);
  return reduce(dy, kept, ReduceOp::sum).reshape(shape);
}

// dx = dy, repeated along the reduced axes.
Tensor sum(const Tensor& x, const std::vector<int>& axes, bool keep_dims) {
  check_floating("sum", {"x", x});
  const auto [kept, visible] = reduced("sum", x, axes, keep_dims);
  Tensor y = reduce(x, kept, ReduceOp::sum).reshape(visible);
  return record("sum", y, {x}, [kept = kept, shape = x.shape()](const Tensor& dy) -> Grads {
    return {expand(dy.reshape(kept), shape)};
  });
}

// dx = dy / n, n values in each mean.
Tensor mean(const Tensor& x, const std::vector<int>& axes, bool keep_dims) {
  check_floating("mean", {"x", x});
  const auto [kept, visible] = reduced("mean", x, axes, keep_dims);
  Tensor y = reduce(x, kept, ReduceOp::mean).reshape(visible);
  return record("mean", y, {x}, [kept = kept, shape = x.shape()](const Tensor& dy) -> Grads {
    const double n = static_cast<double>(shape.numel()) / static_cast<double>(std::max<int64_t>(kept.numel(), 1));
    return {expand((dy / n).reshape(kept), shape)};
  });
}

// dx = dy where x is the largest, shared evenly among equals.
Tensor max(const Tensor& x, const std::vector<int>& axes, bool keep_dims) {
  check_floating("max", {"x", x});
  const auto [kept, visible] = reduced("max", x, axes, keep_dims);
  if (x.numel() == 0 && kept.numel() > 0)
    throw ShapeError(fmt::format("max: expected at least one value to choose from, got {}", describe("x", x)));
  const Tensor largest = reduce(x, kept, ReduceOp::max);
  Tensor y = largest.reshape(visible);
  return record("max", y, {x}, [x = save(x), largest](const Tensor& dy) -> Grads {
    Tensor chosen = empty_like(x.checked());
    launch(Binary{x, largest, chosen, BinaryOp::equal});
    const Tensor count = reduce(chosen, largest.shape(), ReduceOp::sum);
    return {mul(chosen, div(dy.reshape(largest.shape()), count))};
  });
}

std::vector<int32_t> argmax(const Tensor& x) {
  check_floating("argmax", {"x", x});
  if (x.rank() != 2 || (x.dim(1) == 0 && x.dim(0) > 0))
    throw ShapeError(fmt::format("argmax: expected x[N, C] with C >= 1, got {}", describe("x", x)));
  const std::vector<double> values = x.detach().to(Dtype::float64).to_vector<double>();
  std::vector<int32_t> best(static_cast<size_t>(x.dim(0)));
  const int64_t classes = x.dim(1);
  for (size_t i = 0; i < best.size(); ++i) {
    const double* row = values.data() + static_cast<int64_t>(i) * classes;
    best[i] = static_cast<int32_t>(std::max_element(row, row + classes) - row);
  }
  return best;
}

}  // namespace tandem
