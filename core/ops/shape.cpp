#include <algorithm>

#include "tandem/core/compile.h"
#include "tandem/core/cuda.h"
#include "tandem/core/ops/check.h"
#include "tandem/core/tensor_impl.h"

namespace tandem {

// y = x seen with another shape.  dx = dy seen with x's.
Tensor Tensor::reshape(const Shape& wanted) const {
  if (numel() != wanted.numel())
    throw ShapeError(fmt::format("reshape: expected a shape of {} elements for {}, got {} ({})", numel(),
                                 describe("x", *this), to_string(wanted), wanted.numel()));
  Tensor y = TensorAccess::make(wanted, dtype(), impl_->storage).set_mostly_zero(mostly_zero());
  return record("reshape", y, {*this}, [from = shape()](const Tensor& dy) -> Grads { return {dy.reshape(from)}; });
}

Tensor Tensor::reshape(std::initializer_list<int64_t> extents) const {
  const auto open = std::find(extents.begin(), extents.end(), -1);
  if (open == extents.end()) return reshape(Shape(extents));
  std::vector<int64_t> dims = extents;
  int64_t& left = dims[static_cast<size_t>(open - extents.begin())];
  left = 1;
  const int64_t known = Shape(dims).numel();  // refuses a second -1
  if (known == 0 || numel() % known != 0)
    throw ShapeError(fmt::format("reshape: expected extents that divide the {} elements of {}, got [{}]", numel(),
                                 describe("x", *this), fmt::join(extents, ", ")));
  left = numel() / known;
  return reshape(Shape(dims));
}

Tensor reshape(const Tensor& x, const Shape& shape) { return x.reshape(shape); }

// Axis i of y is axis axes[i] of x.  dx = dy permuted back.
Tensor permute(const Tensor& x, const std::vector<int>& axes) {
  const int rank = x.rank();
  int64_t perm[kMaxRank], inverse[kMaxRank], dims[kMaxRank];
  bool seen[kMaxRank] = {};
  bool valid = static_cast<int>(axes.size()) == rank;
  for (int i = 0; valid && i < rank; ++i) {
    const int a = x.shape().axis(axes[i], "permute");
    valid = !std::exchange(seen[a], true);
    perm[i] = a;
    inverse[a] = i;
    dims[i] = x.shape()[a];
  }
  if (!valid)
    throw ShapeError(fmt::format("permute: expected each of the {} axes of {} once, got [{}]", rank, describe("x", x),
                                 fmt::join(axes, ", ")));
  Tensor y = empty(Shape(std::span<const int64_t>(dims, dims + rank)), {x.dtype(), x.device()});
  launch(Permute{x, y, Shape(std::span<const int64_t>(perm, perm + rank))});
  return record("permute", y, {x}, [back = std::vector<int>(inverse, inverse + rank)](const Tensor& dy) -> Grads {
    return {permute(dy, back)};
  });
}

Tensor transpose(const Tensor& x) {
  if (x.rank() != 2) throw ShapeError(fmt::format("transpose: expected a matrix, got {}", describe("x", x)));
  return permute(x, {1, 0});
}

// The parts one after the other along `axis`.  Each part's gradient is its slice of dy.
Tensor concat(const std::vector<Tensor>& parts, int axis) {
  if (parts.empty()) throw ValueError("concat: expected at least one tensor, got none");
  const Tensor& first = parts[0];
  const int along = first.shape().axis(axis, "concat");
  int64_t total = 0;
  for (const Tensor& part : parts) {
    if (part.rank() != first.rank() || part.shape().with(along, 0) != first.shape().with(along, 0))
      throw ShapeError(fmt::format("concat: expected equal extents but for axis {}, got {} and {}", along,
                                   to_string(first.shape()), to_string(part.shape())));
    if (part.dtype() != first.dtype() || !(part.device() == first.device()))
      throw ValueError(fmt::format("concat: expected one dtype and device, got {} on {} and {} on {}",
                                   name_of(first.dtype()), to_string(first.device()), name_of(part.dtype()),
                                   to_string(part.device())));
    total += part.shape()[along];
  }
  Tensor y = empty(first.shape().with(along, total), {first.dtype(), first.device()});
  struct Piece {
    int64_t begin, end;
    bool needed;
  };
  std::vector<Piece> pieces;
  for (int64_t begin = 0; const Tensor& part : parts) {
    launch(Place{part, y, along, begin});
    pieces.push_back({begin, begin + part.shape()[along], part.requires_grad()});
    begin = pieces.back().end;
  }
  return record("concat", y, parts, [along, pieces = std::move(pieces)](const Tensor& dy) -> Grads {
    Grads grads;
    for (const Piece& p : pieces) grads.push_back(p.needed ? slice(dy, along, p.begin, p.end) : Tensor());
    return grads;
  });
}

// y = x[begin:end] along `axis`.  dx = dy in its place, 0 elsewhere.
Tensor slice(const Tensor& x, int axis, int64_t begin, int64_t end) {
  const int along = x.shape().axis(axis, "slice");
  if (begin < 0 || end < begin || end > x.shape()[along])
    throw ShapeError(fmt::format("slice: expected 0 <= begin <= end <= {} on axis {} of {}, got [{}, {})",
                                 x.shape()[along], along, describe("x", x), begin, end));
  Tensor y = empty(x.shape().with(along, end - begin), {x.dtype(), x.device()});
  launch(Slice{x, y, along, begin});
  return record("slice", y, {x}, [along, begin, shape = x.shape()](const Tensor& dy) -> Grads {
    Tensor dx = zeros(shape, {dy.dtype(), dy.device()});
    launch(Place{dy, dx, along, begin});
    return {dx};
  });
}

std::string stray_index(Asker asker, int64_t n, int64_t value) {
  return asker == Asker::cross_entropy ? fmt::format("cross_entropy: expected labels in [0, {}), got {}", n, value)
                                       : fmt::format("gather_rows: expected rows in [0, {}) of x, got {}", n, value);
}

void check_index(const View& index, int64_t n, Asker asker) {
  if (index.device.kind == Device::Kind::cuda) return launch(CheckIndex{index, asker, n});
  on_host("CheckIndex", index, [n, asker](const View& host) {
    const int32_t* begin = host.as<int32_t>();
    const int32_t* end = begin + host.dims.numel();
    const int32_t* stray = std::find_if(begin, end, [n](int32_t i) { return i < 0 || i >= n; });
    if (stray != end) throw ValueError(stray_index(asker, n, *stray));
  });
}

// y[i] = x[index[i]].  dx[index[i]] += dy[i].
Tensor gather_rows(const Tensor& x, const Tensor& index) {
  check_dtype("gather_rows", {"index", index}, Dtype::int32);
  if (x.rank() < 1 || index.rank() != 1)
    throw ShapeError(fmt::format("gather_rows: expected x[N, ...] and index[M], got {} and {}", describe("x", x),
                                 describe("index", index)));
  check_index(index, x.shape()[0], Asker::gather_rows);
  Tensor y = empty(x.shape().with(0, index.numel()), {x.dtype(), x.device()});
  launch(GatherRows{x, index, y});
  return record("gather_rows", y, {x}, [index = save(index), shape = x.shape()](const Tensor& dy) -> Grads {
    Tensor dx = empty(shape, {dy.dtype(), dy.device()});
    launch(GatherRowsGrad{dy, index, dx});
    return {dx};
  });
}

// y = x repeated to `shape`.  dx = dy summed over what was repeated.
Tensor expand(const Tensor& x, const Shape& shape) {
  check_floating("expand", {"x", x});
  const int extra = shape.rank() - x.rank();
  bool fits = extra >= 0;
  for (int i = 0; fits && i < x.rank(); ++i) fits = x.shape()[i] == shape[i + extra] || x.shape()[i] == 1;
  if (!fits)
    throw ShapeError(
        fmt::format("expand: expected a shape that {} broadcasts to, got {}", describe("x", x), to_string(shape)));
  Tensor y = empty(shape, {x.dtype(), x.device()});
  launch(Expand{x, y});
  return record("expand", y, {x}, [from = x.shape()](const Tensor& dy) -> Grads { return {sum_to(dy, from)}; });
}

}  // namespace tandem
