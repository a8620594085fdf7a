// Shape: the extents of a tensor, outermost first, printed as [64, 784].
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace tandem {

inline constexpr int kMaxRank = 6;

// At most kMaxRank extents, each >= 0. The number of elements always fits in int64.
// Element access is checked by the callers (ops), not here.
class Shape {
 public:
  Shape() = default;  // a scalar: rank 0, one element
  // Throws ShapeError for a negative extent, more than kMaxRank of them, or too many elements.
  Shape(std::initializer_list<int64_t> dims);
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t numel() const { return numel_; }
  int64_t operator[](int axis) const { return dims_[axis]; }  // 0 <= axis < rank()
  const int64_t* begin() const { return dims_; }
  const int64_t* end() const { return dims_ + rank_; }
  bool operator==(const Shape& other) const;

  // axis in [-rank, rank) as one in [0, rank); throws ShapeError naming `op` otherwise.
  int axis(int axis, const char* op) const;
  // The same shape with one extent replaced, removed or inserted before `axis`.
  Shape with(int axis, int64_t extent) const;
  Shape without(int axis) const;
  Shape insert(int axis, int64_t extent) const;

 private:
  int rank_ = 0;
  int64_t dims_[kMaxRank] = {};
  int64_t numel_ = 1;
};

std::string to_string(const Shape& shape);  // "[64, 784]", "[]" for a scalar

// Two extents of an image, or what is done along them: one number for both, or {h, w}.
struct Size2 {
  int64_t h, w;

  constexpr Size2(int64_t both) : h(both), w(both) {}
  constexpr Size2(int64_t height, int64_t width) : h(height), w(width) {}
  bool operator==(const Size2&) const = default;
};
std::string to_string(Size2 size);  // "3", or "3x2" where they differ

}  // namespace tandem
