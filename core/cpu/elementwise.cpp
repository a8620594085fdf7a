#include "tandem/core/cpu/kernel.h"
#include "tandem/core/walk.h"

namespace tandem::TANDEM_BACKEND {

void run(const Fill& k) {
  any_type(k.y.dtype, [&]<class T>(T) {
    T* y = k.y.as<T>();
    const T value = static_cast<T>(k.value);
    for_elements(k.y.dims.numel(), [=](int64_t i) { y[i] = value; });
  });
}

void run(const Cast& k) {
  any_type(k.x.dtype, [&]<class From>(From) {
    any_type(k.y.dtype, [&]<class To>(To) {
      const From* x = k.x.as<From>();
      To* y = k.y.as<To>();
      for_elements(k.y.dims.numel(), [=](int64_t i) { y[i] = static_cast<To>(x[i]); });
    });
  });
}

void run(const Affine& k) {
  floating(k.x.dtype, [&]<class T>(T) {
    const T* x = k.x.as<T>();
    T* y = k.y.as<T>();
    const T scale = static_cast<T>(k.scale), shift = static_cast<T>(k.shift);
    for_elements(k.y.dims.numel(), [=](int64_t i) { y[i] = x[i] * scale + shift; });
  });
}

void run(const AddTo& k) {
  floating(k.g.dtype, [&]<class T>(T) {
    const T* g = k.g.as<T>();
    T* sum = k.sum.as<T>();
    for_elements(k.g.dims.numel(), [=](int64_t i) { sum[i] += g[i]; });
  });
}

void run(const Count& k) {
  for (int64_t i = 0; i < k.n.size(); ++i) *k.n[i].as<int64_t>() += 1;
}

void run(const Scale& k) {
  floating(k.x.dtype, [&]<class T>(T) {
    T* x = k.x.as<T>();
    const T factor = *k.factor.as<T>();
    for_elements(k.x.dims.numel(), [=](int64_t i) { x[i] *= factor; });
  });
}

namespace {

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

}  // namespace

void run(const Unary& k) {
  for_op<UnaryOp::tanh>(
      k.op, [&]<auto op>(Constant<op>) {
        floating(k.x.dtype, [&]<class T>(T) {
          const T* x = k.x.as<T>();
          T* y = k.y.as<T>();
          for_elements(k.y.dims.numel(), [=](int64_t i) { y[i] = scalar::unary<op>(x[i]); });
        });
      });
}

void run(const UnaryGrad& k) {
  for_op<UnaryOp::tanh>(
      k.op, [&]<auto op>(Constant<op>) {
        floating(k.dy.dtype, [&]<class T>(T) {
          const T *saved = k.saved.as<T>(), *dy = k.dy.as<T>();
          T* dx = k.dx.as<T>();
          for_elements(k.dx.dims.numel(), [=](int64_t i) { dx[i] = scalar::unary_grad<op>(saved[i], dy[i]); });
        });
      });
}

void run(const Binary& k) {
  const Shape& dims = k.y.dims;
  Walk walk;
  for (int i = 0; i < dims.rank(); ++i) {
    walk.axis(dims[i], broadcast_step(k.a.dims, dims.rank(), i), broadcast_step(k.b.dims, dims.rank(), i));
  }
  const bool a_moves = walk.inner_a() != 0, b_moves = walk.inner_b() != 0;
  for_op<BinaryOp::equal>(
      k.op, [&]<auto op>(Constant<op>) {
        floating(k.y.dtype, [&]<class T>(T) {
          const T *a = k.a.as<T>(), *b = k.b.as<T>();
          T* y = k.y.as<T>();
          parallel_ranges(walk.numel, kGrain, [&](int64_t begin, int64_t end) {
            for_runs(walk, begin, end, [&](int64_t i, int64_t ia, int64_t ib, int64_t n) {
              binary_run<op>(a + ia, a_moves, b + ib, b_moves, y + i, n);
            });
          });
        });
      });
}

}  // namespace tandem::TANDEM_BACKEND
