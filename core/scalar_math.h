// Per-element formulas, shared by every backend: one expression per element whichever kernel, instruction set
// or device evaluates it. Selects instead of branches, so that loops over them vectorise; no fused
// multiply-add, so that they round alike everywhere.
#pragma once

#include <cmath>
#include <cstdint>

#include "tandem/core/kernels.h"

// Always inlined: a file compiled for one instruction set must not export a copy that others would link to.
#ifdef __CUDACC__
#define TANDEM_HD __host__ __device__ __forceinline__
#else
#define TANDEM_HD [[gnu::always_inline]] inline
#endif

namespace tandem {

// ---- Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011) ---------------------------------------------

struct Philox {
  uint32_t v[4];
};

// Four random words as a function of a 64-bit key and a 128-bit counter.
TANDEM_HD Philox philox4x32(uint64_t key, uint64_t counter_lo, uint64_t counter_hi) {
  uint32_t k0 = static_cast<uint32_t>(key), k1 = static_cast<uint32_t>(key >> 32);
  uint32_t c0 = static_cast<uint32_t>(counter_lo), c1 = static_cast<uint32_t>(counter_lo >> 32);
  uint32_t c2 = static_cast<uint32_t>(counter_hi), c3 = static_cast<uint32_t>(counter_hi >> 32);
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{0xD2511F53} * c0, p1 = uint64_t{0xCD9E8D57} * c2;
    c0 = static_cast<uint32_t>(p1 >> 32) ^ c1 ^ k0;
    c2 = static_cast<uint32_t>(p0 >> 32) ^ c3 ^ k1;
    c1 = static_cast<uint32_t>(p1);
    c3 = static_cast<uint32_t>(p0);
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return {{c0, c1, c2, c3}};
}

namespace scalar {

// ---- what tensor cores make of a factor -------------------------------------------------------------

// To TF32's 10 bits of fraction, ties away from 0 (PTX: cvt.rna.tf32.f32).
TANDEM_HD float round_to_tf32(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  return __builtin_bit_cast(float, finite ? (bits + 0x1000u) & 0xffffe000u : bits);
}
// To bfloat16's 7, ties to even (PTX: cvt.rn.bf16.f32).
TANDEM_HD float round_to_bf16(float x) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, x);
  const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
  return __builtin_bit_cast(float, nan ? bits | 0x400000u : rounded);
}

// ---- exponentials ------------------------------------------------------------------------------------

// 2^n p for n in [-150, 128], in two factors since 2^n alone may be infinite or subnormal.
TANDEM_HD float scale_by_power_of_2(float p, int32_t n) {
  const int32_t half = n >> 1;
  const float a = __builtin_bit_cast(float, static_cast<uint32_t>(half + 127) << 23);
  const float b = __builtin_bit_cast(float, static_cast<uint32_t>(n - half + 127) << 23);
  return p * a * b;
}

// e^x, about 1 ulp: x = n ln 2 + r with |r| <= ln(2)/2, e^r = 1 + r + r^2 P(r), P minimax of degree 5.
// Overflows to infinity, underflows through the subnormals to 0, keeps NaN.
TANDEM_HD float exp(float x) {
  x = x < -104.0f ? -104.0f : x;
  x = x > 89.0f ? 89.0f : x;
  const float magic = 12582912.0f;  // 1.5 * 2^23: adding it rounds to an integer, kept in the low bits
  const float t = x * 1.44269504f + magic;
  const float n = t - magic;
  const float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;  // ln 2 = 0.693359375 - 2.1219444e-4
  float p = 1.98912473e-4f;
  p = p * r + 1.39338810e-3f;
  p = p * r + 8.33331069e-3f;
  p = p * r + 4.16664628e-2f;
  p = p * r + 1.66666667e-1f;
  p = p * r + 0.5f;
  p = (p * (r * r) + r) + 1.0f;
  const uint32_t bits = __builtin_bit_cast(uint32_t, t) - 0x4B400000u;  // the bits of `magic`
  // A NaN's bits could leave the range; it stays NaN whatever it is scaled by.
  const int32_t power = static_cast<int32_t>(bits << 16) >> 16;
  return scale_by_power_of_2(p, power);
}
TANDEM_HD double exp(double x) { return std::exp(x); }

// 1 / (1 + e^-x), from e^-|x| on either side so that it keeps its relative accuracy towards 0.
template <class T>
TANDEM_HD T sigmoid(T x) {
  const T e = exp(x < 0 ? x : -x);
  return (x < 0 ? e : T(1)) / (T(1) + e);
}

// Near 0: x + x z P(z), z = x^2, P minimax of degree 5; else 1 - 2 / (e^2|x| + 1) with x's sign.
TANDEM_HD float tanh(float x) {
  const float a = x < 0 ? -x : x;
  const float far = 1.0f - 2.0f / (exp(a + a) + 1.0f);
  const float z = x * x;
  float p = 2.29274482e-3f;
  p = p * z - 8.34394552e-3f;
  p = p * z + 2.17689187e-2f;
  p = p * z - 5.39592596e-2f;
  p = p * z + 1.33333036e-1f;
  p = p * z - 3.33333332e-1f;
  const float near = x + x * (z * p);
  return a < 0.625f ? near : x < 0 ? -far : far;
}
TANDEM_HD double tanh(double x) { return std::tanh(x); }

// ---- unary and binary ------------------------------------------------------------------------------------

template <UnaryOp op, class T>
TANDEM_HD T unary(T x) {
  if constexpr (op == UnaryOp::exp) return exp(x);
  if constexpr (op == UnaryOp::log) return std::log(x);
  if constexpr (op == UnaryOp::sqrt) return std::sqrt(x);
  if constexpr (op == UnaryOp::abs) return x < 0 ? -x : x + T(0);  // -0 + 0 = 0
  if constexpr (op == UnaryOp::relu) return x <= 0 ? T(0) : x;     // keeps NaN
  if constexpr (op == UnaryOp::sigmoid) return sigmoid(x);
  if constexpr (op == UnaryOp::tanh) return tanh(x);
}

// dy * op'(.), from x for log and abs, from y for the others.
template <UnaryOp op, class T>
TANDEM_HD T unary_grad(T saved, T dy) {
  if constexpr (op == UnaryOp::exp) return dy * saved;
  if constexpr (op == UnaryOp::log) return dy / saved;
  if constexpr (op == UnaryOp::sqrt) return dy * T(0.5) / saved;
  if constexpr (op == UnaryOp::abs) return saved > 0 ? dy : saved < 0 ? -dy : T(0);
  if constexpr (op == UnaryOp::relu) return saved > 0 ? dy : T(0);
  if constexpr (op == UnaryOp::sigmoid) return dy * (saved * (T(1) - saved));
  if constexpr (op == UnaryOp::tanh) return dy * (T(1) - saved * saved);
}

template <BinaryOp op, class T>
TANDEM_HD T binary(T a, T b) {
  if constexpr (op == BinaryOp::add) return a + b;
  if constexpr (op == BinaryOp::sub) return a - b;
  if constexpr (op == BinaryOp::mul) return a * b;
  if constexpr (op == BinaryOp::div) return a / b;
  if constexpr (op == BinaryOp::maximum) return a != a || a > b ? a : b;  // NaN if either is
  if constexpr (op == BinaryOp::minimum) return a != a || a < b ? a : b;
  if constexpr (op == BinaryOp::step) return a > b ? T(1) : a == b ? T(0.5) : T(0);
  if constexpr (op == BinaryOp::equal) return a == b ? T(1) : T(0);
}

// ---- batch norm ------------------------------------------------------------------------------------------

// rstd for a biased variance; 0 where var and eps are 0, so that a constant channel becomes beta.
TANDEM_HD double bn_rstd(double var, double eps) { return var + eps == 0 ? 0.0 : 1.0 / std::sqrt(var + eps); }

// A channel's constants; k = rstd * gamma. The mean is mean + rest, so that float32 too subtracts all its digits.
template <class T>
struct BnScale {
  T mean, rest, k, beta;
};
template <class T>
TANDEM_HD BnScale<T> bn_scale(double mean, double rstd, double gamma, double beta) {
  const T rounded = static_cast<T>(mean);
  return {rounded, static_cast<T>(mean - static_cast<double>(rounded)), static_cast<T>(rstd * gamma),
          static_cast<T>(beta)};
}
// x - mean: where x is near the mean, the first difference is exact (Sterbenz).
template <class T>
TANDEM_HD T bn_centred(T x, const BnScale<T>& s) {
  return (x - s.mean) - s.rest;
}
template <class T>
TANDEM_HD T bn_apply(T x, const BnScale<T>& s) {
  return bn_centred(x, s) * s.k + s.beta;
}
// mean_dy = sums[0] / n, slope = rstd^2 * sums[1] / n.
template <class T>
TANDEM_HD T bn_grad(T dy, T x, const BnScale<T>& s, T mean_dy, T slope) {
  return s.k * ((dy - mean_dy) - bn_centred(x, s) * slope);
}

// ---- optimizers ------------------------------------------------------------------------------------------

template <class T>
struct SgdHyper {
  T lr, momentum, weight_decay, undampened;  // undampened = 1 - dampening
};
// hyper = {scale, momentum, weight_decay, dampening}, lr = rate scale
template <class T>
TANDEM_HD SgdHyper<T> sgd_hyper(double rate, const double* hyper) {
  return {static_cast<T>(rate * hyper[0]), static_cast<T>(hyper[1]), static_cast<T>(hyper[2]),
          static_cast<T>(1 - hyper[3])};
}
template <class T>
TANDEM_HD void sgd(T& p, T& v, T g, const SgdHyper<T>& h, bool nesterov, bool first) {
  g = g + h.weight_decay * p;
  v = first ? g : h.momentum * v + h.undampened * g;
  p = p - h.lr * (nesterov ? g + h.momentum * v : v);
}

// b^n by squaring, n >= 0: the same on every backend, as a library's pow is not.
TANDEM_HD double power(double b, int64_t n) {
  double result = 1;
  for (; n > 0; n /= 2, b *= b) result *= n % 2 == 1 ? b : 1.0;
  return result;
}

template <class T>
struct AdamHyper {
  T beta1, new1, beta2, new2;  // new = 1 - beta
  T eps, weight_decay;
  T keep;        // 1 - lr wd, for decoupled decay
  T step_size;   // lr / (1 - beta1^t)
  T correction;  // sqrt(1 - beta2^t)
};
// hyper = {scale, beta1, beta2, eps, weight_decay}, lr = rate scale
template <class T>
TANDEM_HD AdamHyper<T> adam_hyper(double rate, const double* hyper, int64_t step) {
  const double lr = rate * hyper[0], beta1 = hyper[1], beta2 = hyper[2], eps = hyper[3], decay = hyper[4];
  return {static_cast<T>(beta1),
          static_cast<T>(1 - beta1),
          static_cast<T>(beta2),
          static_cast<T>(1 - beta2),
          static_cast<T>(eps),
          static_cast<T>(decay),
          static_cast<T>(1 - lr * decay),
          static_cast<T>(lr / (1 - power(beta1, step))),
          static_cast<T>(std::sqrt(1 - power(beta2, step)))};
}
template <class T>
TANDEM_HD void adam(T& p, T& m, T& v, T g, const AdamHyper<T>& h, bool decoupled) {
  if (decoupled)
    p = p * h.keep;
  else
    g = g + h.weight_decay * p;
  m = h.beta1 * m + h.new1 * g;
  v = h.beta2 * v + h.new2 * (g * g);
  p = p - h.step_size * (m / (std::sqrt(v) / h.correction + h.eps));
}

}  // namespace scalar
}  // namespace tandem
