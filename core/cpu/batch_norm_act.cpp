// Batch norm with its activation in one pass: the same values, never stored in between.
#include "tandem/core/cpu/batch_norm.h"

namespace tandem::TANDEM_BACKEND {
namespace {

template <UnaryOp act, class T, class P>
[[gnu::always_inline]] inline T act_value(T x, const Constants<P>& at) {
  return scalar::unary<act>(static_cast<T>(scalar::bn_apply(static_cast<P>(x), scale<P>(at))));
}

// The gradient before the activation.
template <UnaryOp act, class T, class P>
auto through_act(const T* y, const T* dy, const T* x) {
  return [=](int64_t i, const Constants<P>& at) __attribute__((always_inline)) {
    if constexpr (act != UnaryOp::relu) return scalar::unary_grad<act>(y[i], dy[i]);
    // relu's result is positive where its operand is.
    return scalar::unary_grad<act>(static_cast<T>(scalar::bn_apply(static_cast<P>(x[i]), scale<P>(at))), dy[i]);
  };
}

}  // namespace

void run(const BnAct& k) {
  const Layout l(k.x.dims, k.axis);
  floating(k.x.dtype, [&]<class T>(T) {
    const T* x = k.x.as<T>();
    arithmetic<T>(k.mean, k.rstd, [&]<class P>(P) {
      const P* table = bn_table<P>(k.mean, k.rstd, k.gamma.as<T>(), k.beta.as<T>());
      for_act(
          k.act, [&]<auto act>(Constant<act>) {
            for_values<4>(
                l, table, k.y.as<T>(), [=](int64_t i, const Constants<P>& at) __attribute__((always_inline)) {
                  return act_value<act>(x[i], at);
                });
          });
    });
  });
}

void run(const BnActGradSums& k) {
  const Layout l(k.x.dims, k.axis);
  floating(k.x.dtype, [&]<class T>(T) {
    const T *y = k.y.as<T>(), *dy = k.dy.as<T>(), *x = k.x.as<T>();
    arithmetic<T>(k.mean, k.rstd, [&]<class P>(P) {
      const P* table = bn_table<P>(k.mean, k.rstd, k.gamma.as<T>(), k.beta.as<T>());
      for_act(
          k.act, [&]<auto act>(Constant<act>) {
            bn_grad_sums(l, chunking(k.x.dims), x, table, k.sums, through_act<act, T, P>(y, dy, x));
          });
    });
  });
}

void run(const BnActGradApply& k) {
  const Layout l(k.x.dims, k.axis);
  floating(k.x.dtype, [&]<class T>(T) {
    const T *y = k.y.as<T>(), *dy = k.dy.as<T>(), *x = k.x.as<T>();
    arithmetic<T>(k.mean, k.rstd, k.n, [&]<class P>(P) {
      const P* table = bn_grad_table<P>(k.mean, k.rstd, k.gamma.as<T>(), k.beta.as<T>(), k.sums, k.n);
      for_act(
          k.act, [&]<auto act>(Constant<act>) {
            const auto gradient = through_act<act, T, P>(y, dy, x);
            for_values<6>(
                l, table, k.dx.as<T>(), [=](int64_t i, const Constants<P>& at) __attribute__((always_inline)) {
                  return bn_grad_value(gradient(i, at), x[i], at);
                });
          });
    });
  });
}

}  // namespace tandem::TANDEM_BACKEND
