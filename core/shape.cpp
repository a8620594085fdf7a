#include "tandem/core/shape.h"

#include <fmt/ranges.h>

#include "tandem/core/error.h"

namespace tandem {

Shape::Shape(std::initializer_list<int64_t> dims) : Shape(std::span(dims.begin(), dims.size())) {}

Shape::Shape(std::span<const int64_t> dims) {
  if (dims.size() > kMaxRank)
    throw ShapeError(fmt::format("shape: expected at most {} axes, got {}", kMaxRank, dims.size()));
  for (int64_t extent : dims) {
    if (extent < 0)
      throw ShapeError(fmt::format("shape: expected extents >= 0, got {} for axis {}", extent, rank_));
    dims_[rank_++] = extent;
  }
  for (int64_t extent : dims)  // an extent of 0 must not hide an overflow from the strides
    if (__builtin_mul_overflow(numel_, extent > 0 ? extent : 1, &numel_) || numel_ > (int64_t{1} << 56))
      throw ShapeError(fmt::format("shape: {} has too many elements", to_string(*this)));
  for (int64_t extent : dims)
    if (extent == 0) numel_ = 0;
}

bool Shape::operator==(const Shape& other) const {
  if (rank_ != other.rank_) return false;
  for (int i = 0; i < rank_; ++i)
    if (dims_[i] != other.dims_[i]) return false;
  return true;
}

int Shape::axis(int axis, const char* op) const {
  if (axis < -rank_ || axis >= rank_)
    throw ShapeError(fmt::format("{}: expected an axis in [{}, {}), got {} for x{}", op, -rank_, rank_,
                                 axis, to_string(*this)));
  return axis < 0 ? axis + rank_ : axis;
}

Shape Shape::with(int axis, int64_t extent) const {
  Shape result = *this;
  result.dims_[axis] = extent;
  return Shape(std::span(result.begin(), result.end()));
}

Shape Shape::without(int axis) const {
  int64_t dims[kMaxRank];
  int n = 0;
  for (int i = 0; i < rank_; ++i)
    if (i != axis) dims[n++] = dims_[i];
  return Shape(std::span(dims, dims + n));
}

Shape Shape::insert(int axis, int64_t extent) const {
  int64_t dims[kMaxRank + 1];
  int n = 0;
  for (int i = 0; i <= rank_; ++i) {
    if (i == axis) dims[n++] = extent;
    if (i < rank_) dims[n++] = dims_[i];
  }
  return Shape(std::span(dims, dims + n));
}

std::string to_string(const Shape& shape) { return fmt::format("[{}]", fmt::join(shape, ", ")); }

std::string to_string(Size2 size) {
  return size.h == size.w ? fmt::format("{}", size.h) : fmt::format("{}x{}", size.h, size.w);
}

}  // namespace tandem
