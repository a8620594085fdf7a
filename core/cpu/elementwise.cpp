#include "kernel.h"
#include "walk.h"

namespace tandem::TANDEM_CPU_PATH {

void run(const Fill& k) {
  any_type(k.y.dtype, [&](auto zero) {
    using T = decltype(zero);
    T* y = k.y.as<T>();
    const T value = static_cast<T>(k.value);
    for_elements(k.y.dims.numel(), [=](int64_t i) { y[i] = value; });
  });
}

void run(const Cast& k) {
  any_type(k.x.dtype, [&](auto from) {
    any_type(k.y.dtype, [&](auto to) {
      const auto* x = k.x.as<decltype(from)>();
      auto* y = k.y.as<decltype(to)>();
      for_elements(k.y.dims.numel(), [=](int64_t i) { y[i] = static_cast<decltype(to)>(x[i]); });
    });
  });
}

void run(const Affine& k) {
  floating(k.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* x = k.x.as<T>();
    T* y = k.y.as<T>();
    const T scale = static_cast<T>(k.scale), shift = static_cast<T>(k.shift);
    for_elements(k.y.dims.numel(), [=](int64_t i) { y[i] = x[i] * scale + shift; });
  });
}

void run(const AddTo& k) {
  floating(k.g.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* g = k.g.as<T>();
    T* sum = k.sum.as<T>();
    for_elements(k.g.dims.numel(), [=](int64_t i) { sum[i] += g[i]; });
  });
}

void run(const Scale& k) {
  floating(k.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    T* x = k.x.as<T>();
    const T factor = *k.factor.as<T>();
    for_elements(k.x.dims.numel(), [=](int64_t i) { x[i] *= factor; });
  });
}

namespace {

template <UnaryOp op>
void unary(const Unary& k) {
  floating(k.x.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* x = k.x.as<T>();
    T* y = k.y.as<T>();
    for_elements(k.y.dims.numel(), [=](int64_t i) { y[i] = scalar::unary<op>(x[i]); });
  });
}

template <UnaryOp op>
void unary_grad(const UnaryGrad& k) {
  floating(k.dy.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T *saved = k.saved.as<T>(), *dy = k.dy.as<T>();
    T* dx = k.dx.as<T>();
    for_elements(k.dx.dims.numel(), [=](int64_t i) { dx[i] = scalar::unary_grad<op>(saved[i], dy[i]); });
  });
}

// One run of the innermost axis, along which an operand either moves by 1 or stands still.
template <BinaryOp op, class T>
void binary_run(const T* a, bool a_moves, const T* b, bool b_moves, T* y, int64_t n) {
  if (a_moves && b_moves) {
    TANDEM_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) y[i] = scalar::binary<op>(a[i], b[i]);
  } else if (a_moves) {
    const T second = *b;
    TANDEM_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) y[i] = scalar::binary<op>(a[i], second);
  } else {
    const T first = *a;
    const int64_t step = b_moves ? 1 : 0;
    TANDEM_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) y[i] = scalar::binary<op>(first, b[i * step]);
  }
}

template <BinaryOp op>
void binary(const Binary& k) {
  const Shape& dims = k.y.dims;
  Walk walk;
  for (int i = 0; i < dims.rank(); ++i) {
    walk.axis(dims[i], broadcast_step(k.a.dims, dims.rank(), i), broadcast_step(k.b.dims, dims.rank(), i));
  }
  floating(k.y.dtype, [&](auto zero) {
    using T = decltype(zero);
    parallel_ranges(walk.numel, kGrain, [&](int64_t begin, int64_t end) {
      for_runs(walk, begin, end, [&](int64_t i, int64_t ia, int64_t ib, int64_t n) {
        binary_run<op>(k.a.as<T>() + ia, walk.inner_a() != 0, k.b.as<T>() + ib, walk.inner_b() != 0,
                       k.y.as<T>() + i, n);
      });
    });
  });
}

}  // namespace

void run(const Unary& k) {
  switch (k.op) {
    case UnaryOp::exp: return unary<UnaryOp::exp>(k);
    case UnaryOp::log: return unary<UnaryOp::log>(k);
    case UnaryOp::sqrt: return unary<UnaryOp::sqrt>(k);
    case UnaryOp::abs: return unary<UnaryOp::abs>(k);
    case UnaryOp::relu: return unary<UnaryOp::relu>(k);
    case UnaryOp::sigmoid: return unary<UnaryOp::sigmoid>(k);
    case UnaryOp::tanh: return unary<UnaryOp::tanh>(k);
  }
}

void run(const UnaryGrad& k) {
  switch (k.op) {
    case UnaryOp::exp: return unary_grad<UnaryOp::exp>(k);
    case UnaryOp::log: return unary_grad<UnaryOp::log>(k);
    case UnaryOp::sqrt: return unary_grad<UnaryOp::sqrt>(k);
    case UnaryOp::abs: return unary_grad<UnaryOp::abs>(k);
    case UnaryOp::relu: return unary_grad<UnaryOp::relu>(k);
    case UnaryOp::sigmoid: return unary_grad<UnaryOp::sigmoid>(k);
    case UnaryOp::tanh: return unary_grad<UnaryOp::tanh>(k);
  }
}

void run(const Binary& k) {
  switch (k.op) {
    case BinaryOp::add: return binary<BinaryOp::add>(k);
    case BinaryOp::sub: return binary<BinaryOp::sub>(k);
    case BinaryOp::mul: return binary<BinaryOp::mul>(k);
    case BinaryOp::div: return binary<BinaryOp::div>(k);
    case BinaryOp::maximum: return binary<BinaryOp::maximum>(k);
    case BinaryOp::minimum: return binary<BinaryOp::minimum>(k);
    case BinaryOp::step: return binary<BinaryOp::step>(k);
    case BinaryOp::equal: return binary<BinaryOp::equal>(k);
  }
}

}  // namespace tandem::TANDEM_CPU_PATH
