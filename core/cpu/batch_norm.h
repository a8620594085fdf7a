// What the batch norm kernels share: how a tensor falls into channels, the constants of each channel, and the loops
// over values and sums of values. All arithmetic is in the tensor's type but where bn_fits_float says no.
#pragma once

#include <type_traits>

#include "tandem/core/cpu/simd.h"

namespace tandem::TANDEM_BACKEND {

// ---- constants of a channel ---------------------------------------------------------------------------------

// Columns of constants, `stride` values apart; at[i] is column i.
template <class P>
struct Constants {
  const P* first;
  int64_t stride;

  [[gnu::always_inline]] P operator[](int column) const { return first[column * stride]; }
  [[gnu::always_inline]] Constants from(int64_t channel) const { return {first + channel, stride}; }
};

// Whether float32 carries the constants of all channels: else the whole call computes in float64. What x holds has no
// say in it, so that the slices of a batch decide alike.
inline bool bn_fits_float(const double* mean, const double* rstd, int64_t channels) {
  int64_t fitting = 0;
  for (int64_t c = 0; c < channels; ++c) fitting += bn_fits_float(mean[c], rstd[c]);
  return fitting == channels;
}

// f(P{}) with the type that a call on tensors of T, whose channels have n values, computes in.
template <class T, class F>
void arithmetic(const View& mean, const View& rstd, int64_t n, const F& f) {
  if constexpr (std::is_same_v<T, float>) {
    if (n > kFew && bn_fits_float(mean.as<double>(), rstd.as<double>(), mean.dims.numel())) return f(float{});
  }
  f(double{});
}
template <class T, class F>
void arithmetic(const View& mean, const View& rstd, const F& f) {
  arithmetic<T>(mean, rstd, kFew + 1, f);
}

// table = the columns mean, rest, k, beta of a BnScale.
template <class P, class T>
void bn_fill(const View& mean, const View& rstd, const T* gamma, const T* beta, P* table) {
  const int64_t channels = mean.dims.numel();
  const double *m = mean.as<double>(), *r = rstd.as<double>();
  TANDEM_INDEPENDENT
  for (int64_t c = 0; c < channels; ++c) {
    const scalar::BnScale<P> s = scalar::bn_scale<P>(m[c], r[c], gamma ? static_cast<double>(gamma[c]) : 1.0,
                                                     beta ? static_cast<double>(beta[c]) : 0.0);
    table[c] = s.mean;
    table[channels + c] = s.rest;
    table[2 * channels + c] = s.k;
    table[3 * channels + c] = s.beta;
  }
}
// The same in scratch memory that has room for `columns`. Bodies of parallel loops may read them, if they take no
// scratch memory themselves.
template <class P, class T>
P* bn_table(const View& mean, const View& rstd, const T* gamma, const T* beta, int columns = 4) {
  P* table = scratch<P>(columns * mean.dims.numel());
  bn_fill(mean, rstd, gamma, beta, table);
  return table;
}
template <class S, class P>
[[gnu::always_inline]] inline scalar::BnScale<S> scale(const Constants<P>& at) {
  return {static_cast<S>(at[0]), static_cast<S>(at[1]), static_cast<S>(at[2]), static_cast<S>(at[3])};
}

// ---- loops ------------------------------------------------------------------------------------------------------

// Neighbouring channels that are walked together, their constants and sums in registers. No result depends on it.
template <class T>
inline constexpr int kWidth = static_cast<int>(2 * kLanes * sizeof(float) / sizeof(T));

template <int W>
struct Width {};

// f(Width<W>, c, skip) for blocks of W channels from c on. Where the last would stick out it begins earlier instead:
// its first `skip` channels have been seen.
template <int W, class F>
[[gnu::always_inline]] inline void for_blocks(int64_t channels, const F& f) {
  if (channels < W) {
    if constexpr (W > 1) for_blocks<(W > 4 ? W / 4 : 1)>(channels, f);
    return;
  }
  for (int64_t c = 0; c < channels; c += W) {
    const int64_t begin = min(c, channels - W);
    f(Width<W>{}, begin, c - begin);
  }
}

template <int W, int kColumns, class P>
struct Block {
  P own[kColumns][W];

  [[gnu::always_inline]] explicit Block(const Constants<P>& table) {
    for (int column = 0; column < kColumns; ++column) {
      for (int j = 0; j < W; ++j) own[column][j] = table.first[column * table.stride + j];
    }
  }
  [[gnu::always_inline]] Constants<P> at(int j) const { return {&own[0][j], W}; }
};

// y[i] = f(i, constants of its channel) for pixels [begin, end) whose channels are neighbours.
template <int kColumns, class T, class P, class F>
void for_pixels(const Constants<P>& table, int64_t begin, int64_t end, T* y, const F& f) {
  const int64_t channels = table.stride;
  for_blocks<kWidth<T>>(channels, [&]<int W>(Width<W>, int64_t c, int64_t) {
    const Block<W, kColumns, P> block(table.from(c));
    for (int64_t i = begin * channels + c; i < end * channels; i += channels) {
      TANDEM_INDEPENDENT
      TANDEM_ROLLED
      for (int j = 0; j < W; ++j) y[i + j] = f(i + j, block.at(j));
    }
  });
}

// y[i] = f(i, constants of its channel) for every value.
template <int kColumns, class T, class P, class F>
void for_values(const Layout& l, const P* constants, T* y, const F& f) {
  const Constants<P> table{constants, l.channels};
  parallel_ranges(l.rows * l.pre, max(4, kGrain / max(1, l.pixel())), [&](int64_t begin, int64_t end) {
    const F local = f;
    if (l.inner == 1) return for_pixels<kColumns>(table, begin, end, y, local);
    for (int64_t p = begin; p < end; ++p) {
      parallel_ranges(l.channels, max(1, kGrain / l.inner), [&](int64_t first, int64_t last) {
        for (int64_t c = first; c < last; ++c) {
          const Block<1, kColumns, P> block(table.from(c));
          const int64_t run = (p * l.channels + c) * l.inner;
          TANDEM_INDEPENDENT
          for (int64_t i = 0; i < l.inner; ++i) y[run + i] = local(run + i, block.at(0));
        }
      });
    }
  });
}

template <class S, int kSums>
struct Terms {
  S term[kSums];
};

// Up to this many sums of a run run side by side, so that they vectorise. Part of the result's definition: the same on
// every instruction set.
inline constexpr int64_t kSide = 32;
// Sums of float32 go over into float64 after so many values. Equal values are rounded alike at each addition, so that
// errors do not cancel: a mean may be off by some 2^-24 * kValues / 4 of their size, about 1e-7.
inline constexpr int64_t kValues = 16;

// totals[s][j] = sum s of f(S{}, position, constants) over pixels [begin, end) of W channels from c on, for
// inner == 1. Float32 has two sums a channel at work, for even and odd pixels.
template <class S, int kColumns, int W, int kSums, class P, class F>
[[gnu::always_inline]] inline void sum_block(const Layout& l, int64_t begin, int64_t end, int64_t c,
                                             const Constants<P>& table, double (&totals)[kSums][W], const F& f) {
  constexpr int kWays = std::is_same_v<S, float> ? 2 : 1;
  const Block<W, kColumns, P> block(table);
  for (int s = 0; s < kSums; ++s) {
    for (int j = 0; j < W; ++j) totals[s][j] = 0;
  }
  while (begin < end) {
    const int64_t stop = kWays == 1 ? end : min(end, begin + kWays * kValues);
    S side[kWays][kSums][W] = {};
    const auto add = [&](int64_t pixel, int way) __attribute__((always_inline)) {
      TANDEM_ROLLED
      for (int j = 0; j < W; ++j) {
        const Terms<S, kSums> t = f(S{}, pixel * l.channels + c + j, block.at(j));
        for (int s = 0; s < kSums; ++s) side[way][s][j] += t.term[s];
      }
    };
    for (; begin + kWays <= stop; begin += kWays) {
      for (int way = 0; way < kWays; ++way) add(begin + way, way);
    }
    for (; begin < stop; ++begin) add(begin, 0);
    for (int s = 0; s < kSums; ++s) {
      for (int j = 0; j < W; ++j) {
        if constexpr (kWays == 2) side[0][s][j] += side[1][s][j];
        totals[s][j] += static_cast<double>(side[0][s][j]);
      }
    }
  }
}

// The same for one channel in runs of inner > 1: kSide sums, added up in order.
template <class S, int kColumns, int kSums, class P, class F>
void sum_runs(const Layout& l, int64_t begin, int64_t end, int64_t c, const Constants<P>& table,
              double (&totals)[kSums][1], const F& f) {
  const Block<1, kColumns, P> block(table);
  S side[kSums][kSide] = {};
  double wide[kSums][kSide] = {};
  int64_t held = 0;
  const auto flush = [&] {
    for (int s = 0; s < kSums; ++s) {
      for (int64_t j = 0; j < kSide; ++j) {
        wide[s][j] += static_cast<double>(side[s][j]);
        side[s][j] = 0;
      }
    }
    held = 0;
  };
  for (int64_t p = begin; p < end; ++p) {
    const int64_t first = (p * l.channels + c) * l.inner;
    int64_t i = 0;
    const auto add = [&](S(&to)[kSums][kSide], int64_t j) __attribute__((always_inline)) {
      const Terms<S, kSums> t = f(S{}, first + i + j, block.at(0));
      for (int s = 0; s < kSums; ++s) to[s][j] += t.term[s];
    };
    while (i + kSide <= l.inner) {
      int64_t steps = (l.inner - i) / kSide;
      if (std::is_same_v<S, float>) steps = min(steps, kValues - held);
      S now[kSums][kSide];  // in registers
      for (int s = 0; s < kSums; ++s) {
        for (int64_t j = 0; j < kSide; ++j) now[s][j] = side[s][j];
      }
      for (int64_t step = 0; step < steps; ++step, i += kSide) {
        TANDEM_ROLLED
        for (int64_t j = 0; j < kSide; ++j) add(now, j);
      }
      for (int s = 0; s < kSums; ++s) {
        for (int64_t j = 0; j < kSide; ++j) side[s][j] = now[s][j];
      }
      held += steps;
      if (std::is_same_v<S, float> && held == kValues) flush();
    }
    for (int64_t j = 0; j < l.inner - i; ++j) add(side, j);
    if (std::is_same_v<S, float> && ++held >= kValues) flush();
  }
  flush();
  for (int s = 0; s < kSums; ++s) {
    totals[s][0] = 0;
    for (int64_t j = 0; j < kSide; ++j) totals[s][0] += wide[s][j];
  }
}

// `table` begins with channel c.
template <class S, int kColumns, int W, int kSums, class P, class F>
[[gnu::always_inline]] inline void sum_pixels(const Layout& l, int64_t begin, int64_t end, int64_t c,
                                              const Constants<P>& table, double (&totals)[kSums][W], const F& f) {
  if constexpr (W == 1) {
    if (l.inner > 1) return sum_runs<S, kColumns>(l, begin, end, c, table, totals, f);
  }
  sum_block<S, kColumns>(l, begin, end, c, table, totals, f);
}

// f(Width<W>, c, skip) for all channels whose values of `pixels` pixels are to be summed, each by itself where it has
// runs: on several threads where rows do not occupy them.
template <class T, class F>
void for_sums(const Layout& l, int64_t pixels, const F& f) {
  if (l.inner == 1) return for_blocks<kWidth<T>>(l.channels, f);
  parallel_ranges(l.channels, max(1, kGrain / max(1, pixels * l.inner)), [&](int64_t first, int64_t last) {
    for (int64_t c = first; c < last; ++c) f(Width<1>{}, c, int64_t{0});
  });
}

template <int W>
[[gnu::always_inline]] inline bool all_finite(const double (&totals)[W]) {
  bool finite = true;
  for (int j = 0; j < W; ++j) finite &= totals[j] - totals[j] == 0;
  return finite;
}

// ---- gradients ----------------------------------------------------------------------------------------------------

// sums[lanes, 2, C] = {sum g, sum g * (x - mean)}, g = dy(position, constants). A chunk of few values, or whose float32
// sums overflow, is summed in float64.
template <class T, class P, class F>
void bn_grad_sums(const Layout& l, const Chunking& cut, const T* x, const P* constants, const Sum& sum, const F& dy) {
  const auto terms = [=]<class S>(S, int64_t i, const Constants<P>& at) __attribute__((always_inline)) {
    const S g = static_cast<S>(dy(i, at));
    return Terms<S, 2>{{g, g * scalar::bn_centred(static_cast<S>(x[i]), scale<S>(at))}};
  };
  parallel_for(cut.lanes(), [&](int64_t lane) {
    double* sums = sum.as<double>() + lane * 2 * l.channels;
    for (int64_t c = 0; !sum.add && c < 2 * l.channels; ++c) sums[c] = 0;
    for (int64_t row = cut.lane_begin(lane); row < cut.lane_begin(lane + 1); row += cut.rows) {
      const int64_t begin = row * l.pre, end = min(row + cut.rows, cut.n) * l.pre;
      const bool few = (end - begin) * l.inner <= kFew;
      for_sums<T>(l, end - begin, [&]<int W>(Width<W>, int64_t c, int64_t skip) {
        const Constants<P> table = Constants<P>{constants, l.channels}.from(c);
        double totals[2][W];
        if (!few) sum_pixels<P, 4>(l, begin, end, c, table, totals, terms);
        if (few || !all_finite(totals[0]) || !all_finite(totals[1])) {
          sum_pixels<double, 4>(l, begin, end, c, table, totals, terms);
        }
        for (int64_t j = skip; j < W; ++j) {
          sums[c + j] += totals[0][j];
          sums[l.channels + c + j] += totals[1][j];
        }
      });
    }
  });
}

// bn_table with two columns more: mean_dy and slope.
template <class P, class T>
P* bn_grad_table(const View& mean, const View& rstd, const T* gamma, const T* beta, const View& sums, int64_t n) {
  const int64_t channels = mean.dims.numel();
  const double *sum = sums.as<double>(), *r = rstd.as<double>(), count = static_cast<double>(n);
  P* table = bn_table<P>(mean, rstd, gamma, beta, 6);
  TANDEM_INDEPENDENT
  for (int64_t c = 0; c < channels; ++c) {
    table[4 * channels + c] = static_cast<P>(sum[c] / count);
    table[5 * channels + c] = static_cast<P>(sum[channels + c] / count * r[c] * r[c]);
  }
  return table;
}
template <class T, class P>
[[gnu::always_inline]] inline T bn_grad_value(T dy, T x, const Constants<P>& at) {
  return static_cast<T>(scalar::bn_grad(static_cast<P>(dy), static_cast<P>(x), scale<P>(at), at[4], at[5]));
}

}  // namespace tandem::TANDEM_BACKEND
