#include <type_traits>

#include "tandem/cuda/columns.h"

namespace tandem::cuda {
namespace {

struct Largest {
  double sum[1] = {-__builtin_inf()};
  TANDEM_DEVICE void add(const Largest& more) { sum[0] = scalar::binary<BinaryOp::maximum>(sum[0], more.sum[0]); }
};

// y[column] = op over the column's values / count.
template <ReduceOp op, class From, class To>
struct ReduceValues {
  using Total = std::conditional_t<op == ReduceOp::max, Largest, Sums<1>>;
  const From* x;
  To* y;
  double count;

  template <bool straight>
  TANDEM_DEVICE Total operator()(int64_t, const Values<straight>& values) const {
    Total total;
    for_values<From>(
        values, [&](int64_t at, int64_t) { return x[at]; },
        [&](int64_t, From v) { total.add({{static_cast<double>(v)}}); });
    return total;
  }
  TANDEM_DEVICE void finish(const Block&, int64_t column, const Total& total) const {
    y[column] = static_cast<To>(op == ReduceOp::mean ? total.sum[0] / count : total.sum[0]);
  }
};

// x as [before, along, after], reduced along its middle.
struct Stage {
  int64_t before, along, after;

  template <class F>
  ColumnReduction<F> columns() const {
    return after == 1 ? ColumnReduction<F>(1, 1, before, along) : ColumnReduction<F>(before, along, after, 1);
  }
};

// The stages of a reduction, innermost axes first; axes that lie together are one.
struct Stages {
  int count = 0;
  Stage of[kMaxRank];

  Stages(const Shape& x, const Shape& y) {
    int64_t before = x.numel(), after = 1;
    for (int axis = x.rank(); axis > 0;) {
      int64_t along = 1;
      for (; axis > 0 && y[axis - 1] == x[axis - 1] && x[axis - 1] != 1; --axis) after *= x[axis - 1];
      for (; axis > 0 && y[axis - 1] == 1; --axis) along *= x[axis - 1];
      before = 1;
      for (int i = 0; i < axis; ++i) before *= x[i];
      if (along != 1) of[count++] = {before, along, after};
    }
    if (count == 0) of[count++] = {y.numel(), 1, 1};
  }
};

// Between stages the values are float64, in the workspace, like the totals of a stage's shares.
template <ReduceOp op, class T>
void reduce(const Reduce& k) {
  using First = ReduceValues<op, T, double>;
  using Total = typename First::Total;
  const Device device = k.x.device;
  const Stages stages(k.x.dims, k.y.dims);
  const double count = static_cast<double>(k.x.dims.numel()) / static_cast<double>(k.y.dims.numel());
  int64_t totals = 0, between = 0;
  for (int i = 0; i < stages.count; ++i) {
    const Stage& s = stages.of[i];
    totals = max(totals, s.columns<First>().totals());
    if (i + 1 < stages.count) between = max(between, s.before * s.after);
  }
  double* memory = workspace<double>(device, totals + 2 * between);
  Total* sums = reinterpret_cast<Total*>(memory + 2 * between);
  const double* from = nullptr;
  for (int i = 0; i < stages.count; ++i) {
    double* to = memory + (i % 2) * between;
    const auto run = [&]<class From, class To>(const From* x, To* y, double divisor) {
      using F = ReduceValues<op, From, To>;
      stages.of[i].columns<F>().run(device, F{x, y, divisor}, sums);
    };
    const auto run_from = [&](const auto* x) { i + 1 == stages.count ? run(x, k.y.as<T>(), count) : run(x, to, 1.0); };
    i == 0 ? run_from(k.x.as<T>()) : run_from(from);
    from = to;
  }
}

template <class P, class T>
struct MergeLanes {
  const P* parts;
  T* total;
  int64_t lanes, n;
  TANDEM_DEVICE void operator()(int64_t i) const {
    P sum = 0;
    for (int64_t lane = 0; lane < lanes; ++lane) sum += parts[lane * n + i];
    total[i] = static_cast<T>(sum);
  }
};

template <class T>
struct SquaredValues {
  using Total = Sums<1>;
  const T* x;
  double* squares;

  template <bool straight>
  TANDEM_DEVICE Total operator()(int64_t, const Values<straight>& values) const {
    double sum = 0;
    for_values<T>(
        values, [&](int64_t at, int64_t) { return x[at]; },
        [&](int64_t, T v) { sum = std::fma(static_cast<double>(v), static_cast<double>(v), sum); });
    return {{sum}};
  }
  TANDEM_DEVICE void finish(const Block&, int64_t, const Total& total) const { *squares += total.sum[0]; }
};

template <class T>
struct FactorOfClip {
  const double* squares;
  T* factor;
  double max_norm;
  TANDEM_DEVICE void operator()(int64_t) const {
    const double f = max_norm / (std::sqrt(*squares) + 1e-6);
    *factor = static_cast<T>(f > 1 ? 1 : f);  // NaN stays NaN
  }
};

}  // namespace
}  // namespace tandem::cuda

namespace tandem {
using namespace cuda;

void run(Cuda, const Reduce& k) {
  if (k.y.dims.numel() == 0) return;
  for_op<ReduceOp::max>(
      k.op, [&]<auto op>(Constant<op>) { floating(k.x.dtype, [&]<class T>(T) { reduce<op, T>(k); }); });
}

void run(Cuda, const Merge& k) {
  const int64_t n = k.total.dims.numel();
  floating(k.parts.dtype, [&]<class P>(P) {
    floating(k.total.dtype, [&]<class T>(T) {
      for_elements(k.total.device, n, MergeLanes<P, T>{k.parts.as<P>(), k.total.as<T>(), k.parts.dims[0], n});
    });
  });
}

void run(Cuda, const SumSquares& k) {
  floating(k.x.dtype, [&]<class T>(T) {
    reduce_columns(k.x.device, 1, 1, k.x.dims.numel(), SquaredValues<T>{k.x.as<T>(), k.squares.as<double>()});
  });
}

void run(Cuda, const ClipFactor& k) {
  floating(k.factor.dtype, [&]<class T>(T) {
    for_elements(k.factor.device, 1, FactorOfClip<T>{k.squares.as<double>(), k.factor.as<T>(), k.max_norm});
  });
}

void run(Cuda, const SumRows& k) {
  if (k.db.dims.numel() == 0) return;
  const Shape& dims = k.dy.dims;
  const int64_t width = dims[dims.rank() - 1];
  floating(k.dy.dtype, [&]<class T>(T) {
    floating(k.db.dtype, [&]<class S>(S) {
      reduce_columns(k.dy.device, dims.numel() / width, width, 1,
                     ReduceValues<ReduceOp::sum, T, S>{k.dy.as<T>(), k.db.as<S>(), 1});
    });
  });
}

}  // namespace tandem
