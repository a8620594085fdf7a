#include "tandem/core/cpu/batch_norm.h"

namespace tandem::TANDEM_BACKEND {
namespace {

// mean and m2 [channels] of the values of rows [begin, end) whose mask is not 0; returns how many a channel has.
template <class T>
double masked_moments(const Layout& l, const T* x, const T* mask, int64_t begin, int64_t end, double* mean,
                      double* m2) {
  const auto for_marked = [&](int64_t c, const auto& f) {
    for (int64_t p = begin * l.pre; p < end * l.pre; ++p) {
      for (int64_t i = 0; i < l.inner; ++i) {
        if (mask[p * l.inner + i] != 0) f(static_cast<double>(x[(p * l.channels + c) * l.inner + i]));
      }
    }
  };
  double count = 0;
  for (int64_t c = 0; c < l.channels; ++c) {
    double n = 0, first = 0, sum = 0, squares = 0;
    for_marked(c, [&](double v) {
      if (n == 0) first = v;
      sum += v - first;
      n += 1;
    });
    mean[c] = n > 0 ? first + sum / n : 0;
    for_marked(c, [&](double v) { squares += (v - mean[c]) * (v - mean[c]); });
    m2[c] = squares;
    count = n;
  }
  return count;
}

template <int W>
struct BlockMoments {
  double mean[W], m2[W];
};

// Of pixels [begin, end) of W channels from c on, in two passes in float64. Counting from the first value makes a
// constant channel's mean exact, and its deviations 0.
template <int W, class T>
[[gnu::noinline]] BlockMoments<W> two_passes(const Layout& l, const T* x, int64_t begin, int64_t end, int64_t c) {
  const double count = static_cast<double>((end - begin) * l.inner);
  BlockMoments<W> m;
  double origin[W], sum[1][W], squares[1][W];
  for (int j = 0; j < W; ++j) origin[j] = static_cast<double>(x[(begin * l.channels + c + j) * l.inner]);
  const auto difference = [=](double, int64_t i, const Constants<double>& at) __attribute__((always_inline)) {
    return Terms<double, 1>{{static_cast<double>(x[i]) - at[0]}};
  };
  const auto square = [=](double, int64_t i, const Constants<double>& at) __attribute__((always_inline)) {
    const double d = static_cast<double>(x[i]) - at[0];
    return Terms<double, 1>{{d * d}};
  };
  sum_pixels<double, 1>(l, begin, end, c, Constants<double>{origin, W}, sum, difference);
  for (int j = 0; j < W; ++j) m.mean[j] = origin[j] + sum[0][j] / count;
  sum_pixels<double, 1>(l, begin, end, c, Constants<double>{m.mean, W}, squares, square);
  for (int j = 0; j < W; ++j) m.m2[j] = squares[0][j];
  return m;
}

// In one pass in float32, counting from a guess at the mean, g: sum d^2 - (sum d)^2 / n, d = x - g, loses one digit at
// most if g is within three standard deviations. fits[j]: whether it is, and the result in float32's range.
template <int W>
[[gnu::always_inline]] inline BlockMoments<W> one_pass(const Layout& l, const float* x, int64_t begin, int64_t end,
                                                       int64_t c, bool (&fits)[W]) {
  constexpr int64_t kSamples = 8;
  const int64_t values = (end - begin) * l.inner;
  const double n = static_cast<double>(values);
  const float* samples[kSamples];
  for (int64_t i = 0; i < kSamples; ++i) {  // steps of the golden section: in no step with an image's rows
    const int64_t at = (i * 40503 % 65536) * values / 65536;
    samples[i] = x + ((begin + at / l.inner) * l.channels + c) * l.inner + at % l.inner;
  }
  double guess[W], totals[2][W];
  float parts[2][W];
  for (int64_t j = 0; j < W; ++j) {
    const double first = static_cast<double>(samples[0][j * l.inner]);
    double sum = 0;
    for (int64_t i = 1; i < kSamples; ++i) sum += static_cast<double>(samples[i][j * l.inner]) - first;
    guess[j] = first + sum / kSamples;  // of a constant channel exactly its value
    parts[0][j] = static_cast<float>(guess[j]);
    parts[1][j] = static_cast<float>(guess[j] - static_cast<double>(parts[0][j]));
  }
  const auto terms = [=](float, int64_t i, const Constants<float>& at) __attribute__((always_inline)) {
    const float d = (x[i] - at[0]) - at[1];
    return Terms<float, 2>{{d, d * d}};
  };
  sum_pixels<float, 2>(l, begin, end, c, Constants<float>{parts[0], W}, totals, terms);
  BlockMoments<W> m;
  for (int j = 0; j < W; ++j) {
    const double shift = totals[0][j] / n, m2 = totals[1][j] - totals[0][j] * shift;
    m.mean[j] = guess[j] + shift;
    m.m2[j] = m2;
    fits[j] = m2 > 0.1 * totals[1][j] && m2 > 1e-32 * n && m2 < 1e300;
  }
  return m;
}

template <int W, class T>
[[gnu::always_inline]] inline BlockMoments<W> block_moments(const Layout& l, const T* x, int64_t begin, int64_t end,
                                                            int64_t c) {
  if constexpr (std::is_same_v<T, float>) {
    if ((end - begin) * l.inner <= kFew) return two_passes<W>(l, x, begin, end, c);
    bool fits[W], all = true;
    BlockMoments<W> m = one_pass<W>(l, x, begin, end, c, fits);
    for (int j = 0; j < W; ++j) all &= fits[j];
    if (all) return m;
    const BlockMoments<W> exact = two_passes<W>(l, x, begin, end, c);
    for (int j = 0; j < W; ++j) {
      m.mean[j] = fits[j] ? m.mean[j] : exact.mean[j];
      m.m2[j] = fits[j] ? m.m2[j] : exact.m2[j];
    }
    return m;
  } else {
    return two_passes<W>(l, x, begin, end, c);
  }
}

}  // namespace

void run(const BnMoments& k) {
  const Layout l(k.x.dims, k.axis);
  const Chunking cut = chunking(k.x.dims);
  floating(k.x.dtype, [&]<class T>(T) {
    const T* x = k.x.as<T>();
    parallel_for(cut.chunks(), [&](int64_t chunk) {
      const int64_t first = cut.chunk_begin(chunk), last = cut.chunk_begin(chunk + 1);
      const int64_t begin = first * l.pre, end = last * l.pre;
      if (k.counts) k.counts.as<double>()[chunk] = static_cast<double>((end - begin) * l.inner);
      double *mean = k.moments.as<double>() + chunk * 2 * l.channels, *m2 = mean + l.channels;
      if (k.mask) {
        k.counts.as<double>()[chunk] = masked_moments(l, x, k.mask.as<T>(), first, last, mean, m2);
        return;
      }
      for_sums<T>(l, end - begin, [&]<int W>(Width<W>, int64_t c, int64_t) {
        const BlockMoments<W> m = block_moments<W>(l, x, begin, end, c);
        for (int j = 0; j < W; ++j) {
          mean[c + j] = m.mean[j];
          m2[c + j] = m.m2[j];
        }
      });
    });
  });
}

namespace {

// running = (1 - w) running + w batch, for each channel where that is finite.
template <class T>
void update_running(const BnFinish& k, const double* mean, const double* m2, double count) {
  T *running_mean = k.running_mean.as<T>(), *running_var = k.running_var.as<T>();
  int64_t& batches = *k.batches.as<int64_t>();
  batches += 1;
  const double w = k.cumulative ? 1.0 / static_cast<double>(batches) : k.new_weight;
  const double divisor = k.unbiased && count > 1 ? count - 1 : count;
  const auto update = [&](T& running, double batch) {
    const T next = static_cast<T>((1 - w) * static_cast<double>(running) + w * batch);
    const bool kept = __builtin_isfinite(batch) && __builtin_isfinite(next);
    if (kept) running = next;
    return kept;
  };
  for (int64_t c = 0; c < k.mean.dims.numel(); ++c) {
    const bool mean_kept = update(running_mean[c], mean[c]), var_kept = update(running_var[c], m2[c] / divisor);
    if (!(mean_kept && var_kept) && k.skipped) *k.skipped.as<int64_t>() += 1;
  }
}

}  // namespace

void run(const BnFinish& k) {
  const int64_t channels = k.mean.dims.numel(), chunks = k.moments.dims[0];
  double *mean = k.mean.as<double>(), *m2 = k.rstd.as<double>();  // rstd holds M2 until the end
  for (int64_t c = 0; c < channels; ++c) mean[c] = m2[c] = 0;
  double count = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    const double more = k.counts ? k.counts.as<double>()[chunk]
                                 : static_cast<double>(min(k.chunk_rows, k.rows - chunk * k.chunk_rows) * k.per_row);
    if (more == 0) continue;
    const double *mean_b = k.moments.as<double>() + chunk * 2 * channels, *m2_b = mean_b + channels;
    const double share = more / (count + more), spread = count * share;
    const bool first = count == 0;
    TANDEM_INDEPENDENT
    for (int64_t c = 0; c < channels; ++c) {
      const double delta = mean_b[c] - mean[c];
      mean[c] = first ? mean_b[c] : mean[c] + delta * share;
      m2[c] = first ? m2_b[c] : m2[c] + m2_b[c] + delta * delta * spread;
    }
    count += more;
  }
  if (k.running_mean) {
    floating(k.running_mean.dtype, [&](auto zero) { update_running<decltype(zero)>(k, mean, m2, count); });
  }
  double* rstd = m2;
  for (int64_t c = 0; c < channels; ++c) rstd[c] = scalar::bn_rstd(m2[c] / count, k.eps);
}

void run(const BnFromRunning& k) {
  double *mean = k.mean.as<double>(), *rstd = k.rstd.as<double>();
  floating(k.running_mean.dtype, [&]<class T>(T) {
    for (int64_t c = 0; c < k.mean.dims.numel(); ++c) {
      mean[c] = static_cast<double>(k.running_mean.as<T>()[c]);
      rstd[c] = scalar::bn_rstd(static_cast<double>(k.running_var.as<T>()[c]), k.eps);
    }
  });
}

void run(const BnGradFinish& k) {
  const int64_t channels = k.rstd.dims.numel();
  const double *sums = k.sums.as<double>(), *rstd = k.rstd.as<double>();
  floating(k.dgamma ? k.dgamma.dtype : k.dbeta.dtype, [&]<class T>(T) {
    T *dgamma = k.dgamma.as<T>(), *dbeta = k.dbeta.as<T>();
    for (int64_t c = 0; c < channels; ++c) {
      if (dgamma) dgamma[c] = static_cast<T>(sums[channels + c] * rstd[c]);
      if (dbeta) dbeta[c] = static_cast<T>(sums[c]);
    }
  });
}

void run(const BnApply& k) {
  const Layout l(k.x.dims, k.axis);
  floating(k.x.dtype, [&]<class T>(T) {
    const T* x = k.x.as<T>();
    arithmetic<T>(k.mean, k.rstd, [&]<class P>(P) {
      const P* table = bn_table<P>(k.mean, k.rstd, k.gamma.as<T>(), k.beta.as<T>());
      for_values<4>(
          l, table, k.y.as<T>(), [=](int64_t i, const Constants<P>& at) __attribute__((always_inline)) {
            return static_cast<T>(scalar::bn_apply(static_cast<P>(x[i]), scale<P>(at)));
          });
    });
  });
}

void run(const BnGradSums& k) {
  const Layout l(k.x.dims, k.axis);
  floating(k.x.dtype, [&]<class T>(T) {
    const T *x = k.x.as<T>(), *dy = k.dy.as<T>(), *none = nullptr;
    arithmetic<T>(k.mean, k.rstd, [&]<class P>(P) {
      const P* table = bn_table<P>(k.mean, k.rstd, none, none);
      bn_grad_sums(
          l, chunking(k.x.dims), x, table,
          k.sums, [=](int64_t i, const Constants<P>&) __attribute__((always_inline)) { return dy[i]; });
    });
  });
}

void run(const BnGradApply& k) {
  const Layout l(k.dy.dims, k.axis);
  floating(k.dy.dtype, [&]<class T>(T) {
    const T *x = k.x.as<T>(), *dy = k.dy.as<T>(), *mask = k.mask.as<T>(), *gamma = k.gamma.as<T>(), *none = nullptr;
    T* dx = k.dx.as<T>();
    arithmetic<T>(k.mean, k.rstd, k.n, [&]<class P>(P) {
      const auto scaled = [=](int64_t i, const Constants<P>& at) __attribute__((always_inline)) {
        return static_cast<T>(static_cast<P>(dy[i]) * at[2]);
      };
      if (!k.sums) return for_values<4>(l, bn_table<P>(k.mean, k.rstd, gamma, none), dx, scaled);
      const P* table = bn_grad_table<P>(k.mean, k.rstd, gamma, none, k.sums, k.n);
      const auto value = [=](int64_t i, const Constants<P>& at) __attribute__((always_inline)) {
        return bn_grad_value(dy[i], x[i], at);
      };
      if (!mask) return for_values<6>(l, table, dx, value);
      for_values<6>(
          l, table, dx, [=](int64_t i, const Constants<P>& at) __attribute__((always_inline)) {
            return mask[l.mask_position(i)] != 0 ? value(i, at) : scaled(i, at);
          });
    });
  });
}

}  // namespace tandem::TANDEM_BACKEND
