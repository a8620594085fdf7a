#include "tandem/core/cpu/kernel.h"
#include "tandem/core/walk.h"

namespace tandem::TANDEM_BACKEND {
namespace {

template <class T>
void fill(T* y, int64_t n, T value) {
  for (int64_t i = 0; i < n; ++i) y[i] = value;
}

// total[..] = op(total[..], x[..]) along one run, which either moves through total or stays on one element.
template <ReduceOp op, class T>
void reduce_run(const T* x, double* total, bool moves, int64_t n) {
  const auto combine = [](double a, double b) {
    return op == ReduceOp::max ? scalar::binary<BinaryOp::maximum>(a, b) : a + b;
  };
  if (moves) {
    TANDEM_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) total[i] = combine(total[i], static_cast<double>(x[i]));
  } else {
    double one = *total;
    for (int64_t i = 0; i < n; ++i) one = combine(one, static_cast<double>(x[i]));
    *total = one;
  }
}

}  // namespace

void run(const Reduce& k) {
  const Shape &x = k.x.dims, &y = k.y.dims;
  Walk walk;
  for (int i = 0; i < x.rank(); ++i) walk.axis(x[i], broadcast_step(y, x.rank(), i));
  // Pieces along the outermost axis where it is kept, so that each owns its part of y; else one piece.
  const bool splits = walk.rank > 0 && walk.a[0] != 0;
  const int64_t slices = splits ? walk.dims[0] : 1;
  const int64_t x_slice = x.numel() / max(1, slices), y_slice = y.numel() / max(1, slices);
  const double count = static_cast<double>(x_slice) / static_cast<double>(y_slice);
  for_op<ReduceOp::max>(
      k.op, [&]<auto op>(Constant<op>) {
        floating(k.x.dtype, [&]<class T>(T) {
          parallel_ranges(slices, max(1, kGrain / max(1, x_slice)), [&](int64_t begin, int64_t end) {
            const int64_t first = begin * y_slice, n = (end - begin) * y_slice;
            double* total = scratch<double>(n);
            fill(total, n, op == ReduceOp::max ? -__builtin_inf() : 0.0);
            for_runs(walk, begin * x_slice, end * x_slice, [&](int64_t i, int64_t iy, int64_t, int64_t run) {
              reduce_run<op>(k.x.as<T>() + i, total + (iy - first), walk.inner_a() != 0, run);
            });
            T* out = k.y.as<T>() + first;
            for (int64_t i = 0; i < n; ++i) {
              out[i] = static_cast<T>(op == ReduceOp::mean ? total[i] / count : total[i]);
            }
          });
        });
      });
}

void run(const Merge& k) {
  const int64_t lanes = k.parts.dims[0], n = k.total.dims.numel();
  floating(k.parts.dtype, [&]<class P>(P) {
    floating(k.total.dtype, [&]<class T>(T) {
      const P* parts = k.parts.as<P>();
      T* total = k.total.as<T>();
      parallel_ranges(n, kGrain, [=](int64_t begin, int64_t end) {
        P* sum = scratch<P>(end - begin);
        fill(sum, end - begin, P(0));
        for (int64_t lane = 0; lane < lanes; ++lane) {
          const P* part = parts + lane * n + begin;
          TANDEM_INDEPENDENT
          for (int64_t i = 0; i < end - begin; ++i) sum[i] += part[i];
        }
        for (int64_t i = 0; i < end - begin; ++i) total[begin + i] = static_cast<T>(sum[i]);
      });
    });
  });
}

void run(const SumSquares& k) {
  floating(k.x.dtype, [&]<class T>(T) {
    const T* x = k.x.as<T>();
    const int64_t n = k.x.dims.numel();
    constexpr int kSums = 16;  // independent, so that they vectorise; added up in order
    double sums[kSums] = {};
    int64_t i = 0;
    for (; i + kSums <= n; i += kSums) {
      for (int j = 0; j < kSums; ++j) sums[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
    }
    double total = 0;
    for (int j = 0; j < kSums; ++j) total += sums[j];
    for (; i < n; ++i) total += static_cast<double>(x[i]) * static_cast<double>(x[i]);
    *k.squares.as<double>() += total;
  });
}

void run(const ClipFactor& k) {
  const double factor = k.max_norm / (std::sqrt(*k.squares.as<double>()) + 1e-6);
  floating(k.factor.dtype, [&]<class T>(T) {
    *k.factor.as<T>() = static_cast<T>(factor > 1 ? 1 : factor);  // NaN stays NaN
  });
}

void run(const SumRows& k) {
  const Shape& dims = k.dy.dims;
  const Chunking cut = chunking(dims);
  const int64_t width = dims[dims.rank() - 1];
  if (width == 0) return;
  const int64_t pixels = along(dims, 0).inner / width;  // rows of `width` in a row of axis 0
  floating(k.dy.dtype, [&]<class T>(T) {
    parallel_for(cut.lanes(), [&](int64_t lane) {
      double* sum = k.db.as<double>() + lane * width;
      if (!k.db.add) fill(sum, width, 0.0);
      for (int64_t row = cut.lane_begin(lane) * pixels; row < cut.lane_begin(lane + 1) * pixels; ++row) {
        const T* dy = k.dy.as<T>() + row * width;
        TANDEM_INDEPENDENT
        for (int64_t j = 0; j < width; ++j) sum[j] += static_cast<double>(dy[j]);
      }
    });
  });
}

}  // namespace tandem::TANDEM_BACKEND
