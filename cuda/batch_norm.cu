#include "tandem/cuda/batch_norm.h"

namespace tandem::cuda {
namespace {

// Of n values: their mean and the sum of squared deviations from it.
struct Moments {
  double n = 0, mean = 0, m2 = 0;

  // Chan, Golub, LeVeque 1979.
  TANDEM_DEVICE void add(const Moments& more) {
    if (more.n == 0) return;
    const double both = n + more.n, share = more.n / both, delta = more.mean - mean;
    const bool first = n == 0;
    m2 = first ? more.m2 : m2 + more.m2 + delta * delta * (n * share);
    mean = first ? more.mean : mean + delta * share;
    n = both;
  }
};

template <class T>
struct MaskedValue {
  T x;
  bool counts;
};

// In two passes over a few values in registers. Counting from one of them makes a constant channel's mean exact, and
// its deviations 0.
template <class T, int kBatch>
TANDEM_DEVICE Moments moments_of(const MaskedValue<T> (&v)[kBatch], int n) {
  double origin = 0, sum = 0;
  int counted = 0;
  TANDEM_UNROLL
  for (int j = 0; j < kBatch; ++j) {
    if (j < n && v[j].counts) {
      if (counted == 0) origin = static_cast<double>(v[j].x);
      sum += static_cast<double>(v[j].x) - origin;
      ++counted;
    }
  }
  Moments m;
  if (counted == 0) return m;
  m.n = counted;
  m.mean = origin + sum / m.n;
  TANDEM_UNROLL
  for (int j = 0; j < kBatch; ++j) {
    const double d = static_cast<double>(v[j].x) - m.mean;
    if (j < n && v[j].counts) m.m2 = std::fma(d, d, m.m2);
  }
  return m;
}

// What becomes of a channel's moments: stored,
struct StoreMoments {
  double *moments, *counts;  // [2, channels], [1]; counts may be null
  int64_t channels;

  TANDEM_DEVICE void operator()(const Block&, int64_t c, const Moments& m) const {
    moments[c] = m.mean;
    moments[channels + c] = m.m2;
    if (c == 0 && counts) *counts = m.n;
  }
};

// running = (1 - w) running + w batch where that is finite; returns whether it is.
template <class T>
TANDEM_DEVICE bool update_running(T& running, double batch, double w) {
  const T next = static_cast<T>((1 - w) * static_cast<double>(running) + w * batch);
  const bool kept = __builtin_isfinite(batch) && __builtin_isfinite(next);
  if (kept) running = next;
  return kept;
}

// or used: one thread a channel, the last of which to be done writes what all have read.
template <class T>
struct UseMoments {
  double *mean, *rstd;
  T *running_mean, *running_var;
  int64_t *batches, *skipped, channels;
  double eps, new_weight;
  bool cumulative, unbiased;
  int *done, *not_finite;  // counters

  TANDEM_DEVICE void operator()(const Block& block, int64_t c, const Moments& m) const {
    mean[c] = m.mean;
    rstd[c] = scalar::bn_rstd(m.m2 / m.n, eps);
    if (running_mean) update(block, c, m);
  }

 private:
  TANDEM_DEVICE void update(const Block& block, int64_t c, const Moments& m) const {
    const double w = cumulative ? 1.0 / static_cast<double>(*batches + 1) : new_weight;
    const double divisor = unbiased && m.n > 1 ? m.n - 1 : m.n;
    const bool mean_kept = update_running(running_mean[c], m.mean, w);
    const bool var_kept = update_running(running_var[c], m.m2 / divisor, w);
    if (!(mean_kept && var_kept)) block.count(not_finite);
    if (block.count(done) < channels - 1) return;
    *batches += 1;
    if (skipped) *skipped += *not_finite;
    *done = *not_finite = 0;
  }
};
template <class T, class K>
UseMoments<T> use_moments(const K& k) {
  int* counter = counters(k.mean.device) + kCounters - 2;  // a reduction's blocks count on the first of them
  return {k.mean.template as<double>(),
          k.rstd.template as<double>(),
          k.running_mean.template as<T>(),
          k.running_var.template as<T>(),
          k.batches.template as<int64_t>(),
          k.skipped.template as<int64_t>(),
          k.mean.dims.numel(),
          k.eps,
          k.new_weight,
          k.cumulative,
          k.unbiased,
          counter,
          counter + 1};
}

template <class T, bool masked, class Use>
struct MomentColumns {
  using Total = Moments;
  static constexpr int kBatch = masked ? 4 : 16;
  const T *x, *mask;
  Use use;

  template <bool straight>
  TANDEM_DEVICE Moments operator()(int64_t, Values<straight> values) const {
    Moments total;
    while (values.left > 0) {
      MaskedValue<T> batch[kBatch];
      const int n = load_batch(values, batch, [&](int64_t at, int64_t index) {
        return MaskedValue<T>{x[at], masked ? mask[index] != 0 : true};
      });
      total.add(moments_of(batch, n));
    }
    return total;
  }
  TANDEM_DEVICE void finish(const Block& block, int64_t c, const Moments& total) const { use(block, c, total); }
};
template <class T, class K, class Use>
void reduce_moments(const K& k, const Use& use) {
  const auto reduce = [&]<bool masked>(Constant<masked>) {
    reduce_channels(k.x.device, Layout(k.x.dims, k.axis),
                    MomentColumns<T, masked, Use>{k.x.template as<T>(), k.mask.template as<T>(), use});
  };
  k.mask ? reduce(Constant<true>{}) : reduce(Constant<false>{});
}

template <class T>
struct FromRunning {
  const T *running_mean, *running_var;
  double *mean, *rstd, eps;
  TANDEM_DEVICE void operator()(int64_t c) const {
    mean[c] = static_cast<double>(running_mean[c]);
    rstd[c] = scalar::bn_rstd(static_cast<double>(running_var[c]), eps);
  }
};

// Of a batch norm whose statistics are constants.
template <class T>
struct ScaleGradColumns {
  BnConstants<T> constants;
  int64_t n;
  const T* dy;
  T* dx;
  template <bool straight>
  TANDEM_DEVICE void operator()(int64_t c, const Values<straight>& values) const {
    arithmetic<T>(constants.fits(c) && n > kFew, [&]<class P>(P) {
      const P k = constants.template scale<P>(c).k;
      for_values<T>(
          values, [&](int64_t at, int64_t) { return dy[at]; },
          [&](int64_t at, T g) { dx[at] = static_cast<T>(static_cast<P>(g) * k); });
    });
  }
};

}  // namespace
}  // namespace tandem::cuda

namespace tandem {
using namespace cuda;

void run(Cuda, const BnMoments& k) {
  if (k.moments.dims.numel() == 0) return;
  const int64_t channels = k.x.dims[k.axis];
  floating(k.x.dtype, [&]<class T>(T) {
    reduce_moments<T>(k, StoreMoments{k.moments.as<double>(), k.counts.as<double>(), channels});
  });
}

void run(Cuda, const BnStatistics& k) {
  if (k.mean.dims.numel() == 0) return;
  floating(k.x.dtype, [&]<class T>(T) { reduce_moments<T>(k, use_moments<T>(k)); });
}

void run(Cuda, const BnFromRunning& k) {
  floating(k.running_mean.dtype, [&]<class T>(T) {
    for_elements(
        k.mean.device, k.mean.dims.numel(),
        FromRunning<T>{k.running_mean.as<T>(), k.running_var.as<T>(), k.mean.as<double>(), k.rstd.as<double>(), k.eps});
  });
}

void run(Cuda, const BnApply& k) { bn_apply<NoAct>(k); }

void run(Cuda, const BnGradSums& k) { bn_grad_sums<NoAct>(k, {}); }

void run(Cuda, const BnGradApply& k) {
  if (k.sums) return bn_grad_apply<NoAct>(k, k.mask);
  floating(k.dy.dtype, [&]<class T>(T) {
    map_channels(k.dy.device, Layout(k.dy.dims, k.axis),
                 ScaleGradColumns<T>{bn_constants<T>(k), k.n, k.dy.as<T>(), k.dx.as<T>()});
  });
}

}  // namespace tandem
