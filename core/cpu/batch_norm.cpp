#include "tandem/core/cpu/kernel.h"

namespace tandem::TANDEM_CPU_PATH {
namespace {

// x as [rows, pre, channels, inner]. A pixel is one (row, pre): value i of its channel c is
// x[(pixel * channels + c) * inner + i].
struct Layout {
  int64_t rows, pre, channels, inner;

  Layout(const Shape& x, int axis) : rows(x[0]) {
    const AxisView view = along(x, axis);
    channels = view.extent;
    pre = rows > 0 ? view.outer / rows : 0;
    inner = view.inner;
  }
  int64_t pixel() const { return channels * inner; }
};

template <int kSums>
struct Terms {
  double term[kSums];
};

// Up to this many sums run side by side, so that they vectorise whatever the layout. They are part of the result's
// definition: the same on every instruction set.
constexpr int64_t kSide = 32;

// Pixels [begin, end) of `width` <= kSide channels from c on, for inner == 1: one sum per channel.
template <int kSums, class F>
[[gnu::always_inline]] inline void sum_block(const Layout& l, int64_t begin, int64_t end, int64_t c, int64_t width,
                                             double* sums, const F& f) {
  double side[kSums][kSide] = {};
  for (int64_t p = begin; p < end; ++p) {
    for (int64_t j = 0; j < width; ++j) {
      const Terms<kSums> t = f(p * l.channels + c + j, c + j);
      for (int s = 0; s < kSums; ++s) side[s][j] += t.term[s];
    }
  }
  for (int s = 0; s < kSums; ++s) {
    for (int64_t j = 0; j < width; ++j) sums[s * l.channels + c + j] = side[s][j];
  }
}

// Pixels [begin, end) of channel c, for runs of inner > 1: kSide sums, added up in order.
template <int kSums, class F>
void sum_runs(const Layout& l, int64_t begin, int64_t end, int64_t c, double* sums, const F& f) {
  double side[kSums][kSide] = {};
  for (int64_t p = begin; p < end; ++p) {
    const int64_t first = (p * l.channels + c) * l.inner;
    for (int64_t i = 0; i < l.inner; i += kSide) {
      const int64_t width = min(kSide, l.inner - i);
      for (int64_t j = 0; j < width; ++j) {
        const Terms<kSums> t = f(first + i + j, c);
        for (int s = 0; s < kSums; ++s) side[s][j] += t.term[s];
      }
    }
  }
  for (int s = 0; s < kSums; ++s) {
    double total = 0;
    for (int64_t j = 0; j < kSide; ++j) total += side[s][j];
    sums[s * l.channels + c] = total;
  }
}

// sums[kSums, channels] = the sums of f(position in x, channel) over all values of rows [begin, end).
template <int kSums, class F>
void sum_channels(const Layout& l, int64_t begin, int64_t end, double* sums, const F& f) {
  begin *= l.pre;
  end *= l.pre;
  if (l.inner > 1) {  // each channel by itself: on several threads where rows do not occupy them
    parallel_ranges(l.channels, max(1, kGrain / max(1, (end - begin) * l.inner)), [&](int64_t first, int64_t last) {
      for (int64_t c = first; c < last; ++c) sum_runs<kSums>(l, begin, end, c, sums, f);
    });
  }
  for (int64_t c = 0; l.inner == 1 && c < l.channels; c += kSide) {
    if (l.channels - c >= kSide) sum_block<kSums>(l, begin, end, c, kSide, sums, f);
    else sum_block<kSums>(l, begin, end, c, l.channels - c, sums, f);
  }
}

// f(position, channel) for every value, where `prepare`(table) first fills a table of `columns` doubles per channel.
template <class Prepare, class F>
void for_values(const Layout& l, int columns, const Prepare& prepare, const F& f) {
  parallel_ranges(l.rows * l.pre, max(4, kGrain / max(1, l.pixel())), [&](int64_t begin, int64_t end) {
    double* table = scratch<double>(columns * l.channels);
    for (int64_t c = 0; c < l.channels; ++c) prepare(table, c);
    const F local = f;
    for (int64_t p = begin; p < end; ++p) {
      if (l.inner == 1) {
        TANDEM_INDEPENDENT
        for (int64_t c = 0; c < l.channels; ++c) local(p * l.channels + c, c, table);
        continue;
      }
      parallel_ranges(l.channels, max(1, kGrain / l.inner), [&](int64_t first, int64_t last) {
        for (int64_t c = first; c < last; ++c) {
          const int64_t run = (p * l.channels + c) * l.inner;
          TANDEM_INDEPENDENT
          for (int64_t i = 0; i < l.inner; ++i) local(run + i, c, table);
        }
      });
    }
  });
}

// The mask's element for value i of x: the mask has no channels.
[[gnu::always_inline]] inline int64_t mask_position(const Layout& l, int64_t i) {
  return i / l.pixel() * l.inner + i % l.inner;
}

// mean and m2 [channels] of the values of rows [begin, end) whose mask is not 0; returns how many a channel has.
template <class T>
double masked_moments(const Layout& l, const T* x, const T* mask, int64_t begin, int64_t end, double* mean, double* m2) {
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

}  // namespace

void run(const BnMoments& k) {
  const Layout l(k.x.dims, k.axis);
  const Chunking cut = chunking(k.x.dims);
  floating(k.x.dtype, [&]<class T>(T) {
    const T* x = k.x.as<T>();
    parallel_for(cut.chunks(), [&](int64_t chunk) {
      const int64_t begin = cut.chunk_begin(chunk), end = cut.chunk_begin(chunk + 1);
      const double count = static_cast<double>((end - begin) * l.pre * l.inner);
      if (k.counts) k.counts.as<double>()[chunk] = count;
      double *mean = k.moments.as<double>() + chunk * 2 * l.channels, *m2 = mean + l.channels;
      if (k.mask) {
        k.counts.as<double>()[chunk] = masked_moments(l, x, k.mask.as<T>(), begin, end, mean, m2);
        return;
      }
      // Counting from the chunk's first value makes a constant channel's mean exact, and its deviations 0.
      const T* origin = x + begin * l.pre * l.pixel();
      sum_channels<1>(l, begin, end, mean, [=, inner = l.inner](int64_t i, int64_t c) {
        return Terms<1>{{static_cast<double>(x[i]) - static_cast<double>(origin[c * inner])}};
      });
      for (int64_t c = 0; c < l.channels; ++c) mean[c] = static_cast<double>(origin[c * l.inner]) + mean[c] / count;
      sum_channels<1>(l, begin, end, m2, [=](int64_t i, int64_t c) {
        const double d = static_cast<double>(x[i]) - mean[c];
        return Terms<1>{{d * d}};
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
    const double more = k.counts
                            ? k.counts.as<double>()[chunk]
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

void run(const BnApply& k) {
  const Layout l(k.x.dims, k.axis);
  floating(k.x.dtype, [&]<class T>(T) {
    const T *x = k.x.as<T>(), *gamma = k.gamma.as<T>(), *beta = k.beta.as<T>();
    const double *mean = k.mean.as<double>(), *rstd = k.rstd.as<double>();
    T* y = k.y.as<T>();
    const int64_t channels = l.channels;
    const auto prepare = [=](double* table, int64_t c) {
      table[c] = gamma ? rstd[c] * static_cast<double>(gamma[c]) : rstd[c];
      table[channels + c] = beta ? static_cast<double>(beta[c]) : 0.0;
    };
    for_values(l, 2, prepare, [=](int64_t i, int64_t c, const double* table) {
      y[i] = static_cast<T>(scalar::bn_apply(static_cast<double>(x[i]), mean[c], table[c], table[channels + c]));
    });
  });
}

void run(const BnGradSums& k) {
  const Layout l(k.x.dims, k.axis);
  const Chunking cut = chunking(k.x.dims);
  floating(k.x.dtype, [&]<class T>(T) {
    const T *x = k.x.as<T>(), *dy = k.dy.as<T>();
    const double* mean = k.mean.as<double>();
    parallel_for(cut.lanes(), [&](int64_t lane) {
      double *sums = k.sums.as<double>() + lane * 2 * l.channels, *more = scratch<double>(2 * l.channels);
      for (int64_t c = 0; !k.sums.add && c < 2 * l.channels; ++c) sums[c] = 0;
      for (int64_t begin = cut.lane_begin(lane); begin < cut.lane_begin(lane + 1); begin += cut.rows) {
        sum_channels<2>(l, begin, min(begin + cut.rows, cut.n), more, [=](int64_t i, int64_t c) {
          const double g = static_cast<double>(dy[i]);
          return Terms<2>{{g, g * (static_cast<double>(x[i]) - mean[c])}};
        });
        for (int64_t c = 0; c < 2 * l.channels; ++c) sums[c] += more[c];
      }
    });
  });
}

void run(const BnGradApply& k) {
  const Layout l(k.dy.dims, k.axis);
  floating(k.dy.dtype, [&]<class T>(T) {
    const T *x = k.x.as<T>(), *dy = k.dy.as<T>(), *gamma = k.gamma.as<T>();
    const double *mean = k.mean.as<double>(), *rstd = k.rstd.as<double>(), *sums = k.sums.as<double>();
    T* dx = k.dx.as<T>();
    const int64_t channels = l.channels;
    const double n = static_cast<double>(k.n);
    const auto prepare = [=](double* table, int64_t c) {
      table[c] = gamma ? rstd[c] * static_cast<double>(gamma[c]) : rstd[c];
      table[channels + c] = sums ? sums[c] / n : 0.0;
      table[2 * channels + c] = sums ? sums[channels + c] / n * rstd[c] * rstd[c] : 0.0;
    };
    if (!sums) {
      return for_values(l, 3, prepare, [=](int64_t i, int64_t c, const double* table) {
        dx[i] = static_cast<T>(static_cast<double>(dy[i]) * table[c]);
      });
    }
    const auto value = [=](int64_t i, int64_t c, const double* table) {
      return static_cast<T>(scalar::bn_grad(static_cast<double>(dy[i]), static_cast<double>(x[i]), mean[c], table[c],
                                            table[channels + c], table[2 * channels + c]));
    };
    if (const T* mask = k.mask.as<T>()) {
      return for_values(l, 3, prepare, [=](int64_t i, int64_t c, const double* table) {
        dx[i] = mask[mask_position(l, i)] != 0 ? value(i, c, table)
                                               : static_cast<T>(static_cast<double>(dy[i]) * table[c]);
      });
    }
    for_values(l, 3, prepare, [=](int64_t i, int64_t c, const double* table) { dx[i] = value(i, c, table); });
  });
}

}  // namespace tandem::TANDEM_CPU_PATH
