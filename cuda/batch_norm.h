// The batch norm kernels, each with or without an activation behind the batch norm: Act is NoAct or Constant<act>. With
// one the results are those of separate calls, to the bit, since the same functions compute them.
#pragma once

#include <type_traits>

#include "tandem/cuda/columns.h"

namespace tandem::cuda {

struct NoAct {};

template <class T>
TANDEM_DEVICE T activated(NoAct, T y) {
  return y;
}
template <UnaryOp act, class T>
TANDEM_DEVICE T activated(Constant<act>, T y) {
  return scalar::unary<act>(y);
}

// The channels' constants as they are in memory.
template <class T>
struct BnConstants {
  const double *mean, *rstd;
  const T *gamma, *beta;

  TANDEM_DEVICE bool fits(int64_t c) const { return bn_fits_float(mean[c], rstd[c]); }
  template <class P>
  TANDEM_DEVICE scalar::BnScale<P> scale(int64_t c) const {
    return scalar::bn_scale<P>(mean[c], rstd[c], gamma ? static_cast<double>(gamma[c]) : 1.0,
                               beta ? static_cast<double>(beta[c]) : 0.0);
  }
};
template <class T, class K>
BnConstants<T> bn_constants(const K& k) {
  BnConstants<T> constants{k.mean.template as<double>(), k.rstd.template as<double>(), nullptr, nullptr};
  if constexpr (requires { k.gamma; }) constants.gamma = k.gamma.template as<T>();
  if constexpr (requires { k.beta; }) constants.beta = k.beta.template as<T>();
  return constants;
}

// f(P{}) with the type that a channel of T is computed in.
template <class T, class F>
TANDEM_DEVICE void arithmetic(bool fits, const F& f) {
  if constexpr (std::is_same_v<T, float>) {
    if (fits) return f(float{});
  }
  f(double{});
}

// T's result of a batch norm, which P computes.
template <class T, class P>
TANDEM_DEVICE T bn_value(T x, const scalar::BnScale<P>& s) {
  return static_cast<T>(scalar::bn_apply(static_cast<P>(x), s));
}

template <class T, class Act>
struct BnApplyColumns {
  BnConstants<T> constants;
  const T* x;
  T* y;

  template <bool straight>
  TANDEM_DEVICE void operator()(int64_t c, const Values<straight>& values) const {
    arithmetic<T>(constants.fits(c), [&]<class P>(P) {
      const scalar::BnScale<P> s = constants.template scale<P>(c);
      for_values<T>(
          values, [&](int64_t at, int64_t) { return x[at]; },
          [&](int64_t at, T v) { y[at] = activated(Act{}, bn_value(v, s)); });
    });
  }
};

// ---- gradients ----------------------------------------------------------------------------------------------------

// What a gradient is made of; extra is the mask, or the activation's result.
template <class T>
struct BnGradValue {
  T dy, x, extra;
};
template <class T, class Act>
struct BnGradInputs {
  const T *dy, *x, *extra;  // extra may be null

  TANDEM_DEVICE BnGradValue<T> operator()(int64_t at, int64_t index) const {
    return {dy[at], x[at], extra ? extra[std::is_same_v<Act, NoAct> ? index : at] : T(1)};
  }
};

// The gradient between batch norm and activation.
template <class T, class P>
TANDEM_DEVICE T before_act(NoAct, const BnGradValue<T>& v, const scalar::BnScale<P>&) {
  return v.dy;
}
template <UnaryOp act, class T, class P>
TANDEM_DEVICE T before_act(Constant<act>, const BnGradValue<T>& v, const scalar::BnScale<P>& forward) {
  // relu's result is positive where its operand is.
  return scalar::unary_grad<act>(act == UnaryOp::relu ? bn_value(v.x, forward) : v.extra, v.dy);
}

template <class T, class Act>
struct BnGradSumColumns {
  using Total = Sums<2>;
  BnConstants<T> constants;
  BnGradInputs<T, Act> inputs;
  double* sums;       // [2, channels]
  T *dgamma, *dbeta;  // may be null
  int64_t channels;

  template <bool straight>
  TANDEM_DEVICE Total operator()(int64_t c, const Values<straight>& values) const {
    const double mean = constants.mean[c];
    double sum = 0, product = 0;
    arithmetic<T>(constants.fits(c), [&]<class P>(P) {
      const scalar::BnScale<P> s = constants.template scale<P>(c);
      for_values<BnGradValue<T>>(values, inputs, [&](int64_t, const BnGradValue<T>& v) {
        const double g = static_cast<double>(before_act(Act{}, v, s));
        sum += g;
        product = std::fma(g, static_cast<double>(v.x) - mean, product);
      });
    });
    return {{sum, product}};
  }
  TANDEM_DEVICE void finish(const Block&, int64_t c, const Total& total) const {
    sums[c] = total.sum[0];
    sums[channels + c] = total.sum[1];
    if (dgamma) dgamma[c] = static_cast<T>(sums[channels + c] * constants.rstd[c]);
    if (dbeta) dbeta[c] = static_cast<T>(sums[c]);
  }
};

template <class T, class Act>
struct BnGradApplyColumns {
  BnConstants<T> constants;
  BnGradInputs<T, Act> inputs;
  const double* sums;  // [2, channels]
  int64_t channels, n;
  T* dx;

  template <bool straight>
  TANDEM_DEVICE void operator()(int64_t c, const Values<straight>& values) const {
    arithmetic<T>(constants.fits(c), [&]<class Forward>(Forward) {
      arithmetic<T>(constants.fits(c) && n > kFew, [&]<class P>(P) { apply<Forward, P>(c, values); });
    });
  }

 private:
  template <class Forward, class P, bool straight>
  TANDEM_DEVICE void apply(int64_t c, const Values<straight>& values) const {
    const scalar::BnScale<Forward> forward = constants.template scale<Forward>(c);
    const scalar::BnScale<P> s = constants.template scale<P>(c);
    const double count = static_cast<double>(n), rstd = constants.rstd[c];
    const P mean_dy = static_cast<P>(sums[c] / count);
    const P slope = static_cast<P>(sums[channels + c] / count * rstd * rstd);
    for_values<BnGradValue<T>, 4>(values, inputs, [&](int64_t at, const BnGradValue<T>& v) {
      const P dy = static_cast<P>(before_act(Act{}, v, forward));
      const bool counted = !std::is_same_v<Act, NoAct> || v.extra != 0;
      dx[at] = static_cast<T>(counted ? scalar::bn_grad(dy, static_cast<P>(v.x), s, mean_dy, slope) : dy * s.k);
    });
  }
};

// ---- calls --------------------------------------------------------------------------------------------------------

template <class F>
void map_channels(Device device, const Layout& l, const F& f) {
  map_columns(device, l.rows * l.pre, l.channels, l.inner, f);
}
template <class F>
void reduce_channels(Device device, const Layout& l, const F& f) {
  reduce_columns(device, l.rows * l.pre, l.channels, l.inner, f);
}

template <class Act, class K>
void bn_apply(const K& k) {
  floating(k.x.dtype, [&]<class T>(T) {
    map_channels(k.x.device, Layout(k.x.dims, k.axis),
                 BnApplyColumns<T, Act>{bn_constants<T>(k), k.x.template as<T>(), k.y.template as<T>()});
  });
}
template <class Act, class K>
void bn_grad_sums(const K& k, const View& extra) {
  if (k.sums.dims.numel() == 0) return;
  const Layout l(k.x.dims, k.axis);
  floating(k.x.dtype, [&]<class T>(T) {
    reduce_channels(k.x.device, l,
                    BnGradSumColumns<T, Act>{bn_constants<T>(k),
                                             {k.dy.template as<T>(), k.x.template as<T>(), extra.as<T>()},
                                             k.sums.template as<double>(),
                                             k.dgamma.template as<T>(),
                                             k.dbeta.template as<T>(),
                                             l.channels});
  });
}
template <class Act, class K>
void bn_grad_apply(const K& k, const View& extra) {
  const Layout l(k.dy.dims, k.axis);
  floating(k.dy.dtype, [&]<class T>(T) {
    map_channels(k.dy.device, l,
                 BnGradApplyColumns<T, Act>{bn_constants<T>(k),
                                            {k.dy.template as<T>(), k.x.template as<T>(), extra.as<T>()},
                                            k.sums.template as<double>(),
                                            l.channels,
                                            k.n,
                                            k.dx.template as<T>()});
  });
}

}  // namespace tandem::cuda
