// Walking through a contiguous tensor while following two others of the same rank whose steps differ: broadcast
// operands (step 0 along an axis), permuted ones (any step), reduced ones (step 0 in the result).
#pragma once

#include "tandem/core/backend.h"

namespace tandem::TANDEM_BACKEND {

// The contiguous tensor's extents, outermost first, and the steps of `a` and `b` along them. Axes that can be
// walked as one are merged; axes of extent 1 are left out.
struct Walk {
  int rank = 0;
  int64_t numel = 1;
  int64_t dims[kMaxRank] = {1}, a[kMaxRank] = {}, b[kMaxRank] = {};

  void axis(int64_t extent, int64_t step_a, int64_t step_b = 0) {
    numel *= extent;
    if (extent == 1) return;
    const bool merges = rank > 0 && a[rank - 1] == extent * step_a && b[rank - 1] == extent * step_b;
    if (!merges) dims[rank++] = 1;
    dims[rank - 1] *= extent;
    a[rank - 1] = step_a;
    b[rank - 1] = step_b;
  }
  int64_t inner() const { return rank > 0 ? dims[rank - 1] : 1; }
  int64_t inner_a() const { return rank > 0 ? a[rank - 1] : 0; }
  int64_t inner_b() const { return rank > 0 ? b[rank - 1] : 0; }

  // Where element i of the contiguous tensor is in a and in b.
  struct At {
    int64_t a, b;
  };
  TANDEM_HD At at(int64_t i) const {
    At where{0, 0};
    for (int axis = rank - 1; axis >= 0; --axis) {
      const int64_t next = i / dims[axis], step = i - next * dims[axis];
      where.a += step * a[axis];
      where.b += step * b[axis];
      i = next;
    }
    return where;
  }
};

// How far one step along `axis` moves in `x` when it is broadcast to a tensor of `rank` axes.
inline int64_t broadcast_step(const Shape& x, int rank, int axis) {
  const int own = axis - (rank - x.rank());
  if (own < 0 || x[own] == 1) return 0;
  int64_t step = 1;
  for (int i = own + 1; i < x.rank(); ++i) step *= x[i];
  return step;
}

// f(i, ia, ib, count) for the runs along the innermost axis that make up elements [begin, end): the run starts at
// element i of the contiguous tensor, ia of a and ib of b.
template <class F>
void for_runs(const Walk& walk, int64_t begin, int64_t end, const F& f) {
  const int64_t inner = walk.inner();
  for (int64_t i = begin; i < end;) {
    int64_t row = i / inner;
    const int64_t column = i - row * inner, count = min(inner - column, end - i);
    int64_t ia = column * walk.inner_a(), ib = column * walk.inner_b();
    for (int axis = walk.rank - 2; axis >= 0; --axis) {
      const int64_t next = row / walk.dims[axis], at = row - next * walk.dims[axis];
      ia += at * walk.a[axis];
      ib += at * walk.b[axis];
      row = next;
    }
    f(i, ia, ib, count);
    i += count;
  }
}

}  // namespace tandem::TANDEM_BACKEND
