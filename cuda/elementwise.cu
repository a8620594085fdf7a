#include "tandem/core/walk.h"
#include "tandem/cuda/block.h"

namespace tandem::cuda {
namespace {

template <class T>
struct FillValue {
  T* y;
  T value;
  TANDEM_DEVICE void operator()(int64_t i) const { y[i] = value; }
};

template <class From, class To>
struct CastValue {
  const From* x;
  To* y;
  TANDEM_DEVICE void operator()(int64_t i) const { y[i] = static_cast<To>(x[i]); }
};

template <class T>
struct AffineValue {
  const T* x;
  T *y, scale, shift;
  TANDEM_DEVICE void operator()(int64_t i) const { y[i] = x[i] * scale + shift; }
};

template <class T>
struct AddToValue {
  const T* g;
  T* sum;
  TANDEM_DEVICE void operator()(int64_t i) const { sum[i] += g[i]; }
};

template <class T>
struct ScaleValue {
  const T* factor;
  T* x;
  TANDEM_DEVICE void operator()(int64_t i) const { x[i] *= *factor; }
};

template <UnaryOp op, class T>
struct UnaryValue {
  const T* x;
  T* y;
  TANDEM_DEVICE void operator()(int64_t i) const { y[i] = scalar::unary<op>(x[i]); }
};

template <UnaryOp op, class T>
struct UnaryGradValue {
  const T *saved, *dy;
  T* dx;
  TANDEM_DEVICE void operator()(int64_t i) const { dx[i] = scalar::unary_grad<op>(saved[i], dy[i]); }
};

template <BinaryOp op, class T>
struct BinaryValue {
  Walk walk;
  const T *a, *b;
  T* y;
  TANDEM_DEVICE void operator()(int64_t i) const {
    const Walk::At at = walk.at(i);
    y[i] = scalar::binary<op>(a[at.a], b[at.b]);
  }
};

// The counters of up to so many tensors at once.
struct CountEach {
  static constexpr int kMost = 64;
  int64_t* n[kMost];
  TANDEM_DEVICE void operator()(int64_t i) const { *n[i] += 1; }
};

}  // namespace
}  // namespace tandem::cuda

namespace tandem {
using namespace cuda;

void run(Cuda, const Fill& k) {
  any_type(k.y.dtype, [&]<class T>(T) {
    for_elements(k.y.device, k.y.dims.numel(), FillValue<T>{k.y.as<T>(), static_cast<T>(k.value)});
  });
}

void run(Cuda, const Cast& k) {
  any_type(k.x.dtype, [&]<class From>(From) {
    any_type(k.y.dtype, [&]<class To>(To) {
      for_elements(k.y.device, k.y.dims.numel(), CastValue<From, To>{k.x.as<From>(), k.y.as<To>()});
    });
  });
}

void run(Cuda, const Affine& k) {
  floating(k.x.dtype, [&]<class T>(T) {
    for_elements(k.y.device, k.y.dims.numel(),
                 AffineValue<T>{k.x.as<T>(), k.y.as<T>(), static_cast<T>(k.scale), static_cast<T>(k.shift)});
  });
}

void run(Cuda, const AddTo& k) {
  floating(k.g.dtype, [&]<class T>(T) {
    for_elements(k.sum.device, k.sum.dims.numel(), AddToValue<T>{k.g.as<T>(), k.sum.as<T>()});
  });
}

void run(Cuda, const Count& k) {
  for (int64_t first = 0; first < k.n.size(); first += CountEach::kMost) {
    const int64_t count = cuda::min(CountEach::kMost, k.n.size() - first);
    CountEach each{};
    for (int64_t i = 0; i < count; ++i) each.n[i] = k.n[first + i].as<int64_t>();
    for_elements(k.n[0].device, count, each);
  }
}

void run(Cuda, const Scale& k) {
  floating(k.x.dtype, [&]<class T>(T) {
    for_elements(k.x.device, k.x.dims.numel(), ScaleValue<T>{k.factor.as<T>(), k.x.as<T>()});
  });
}

void run(Cuda, const Unary& k) {
  for_op<UnaryOp::tanh>(
      k.op, [&]<auto op>(Constant<op>) {
        floating(k.x.dtype, [&]<class T>(T) {
          for_elements(k.y.device, k.y.dims.numel(), UnaryValue<op, T>{k.x.as<T>(), k.y.as<T>()});
        });
      });
}

void run(Cuda, const UnaryGrad& k) {
  for_op<UnaryOp::tanh>(
      k.op, [&]<auto op>(Constant<op>) {
        floating(k.dy.dtype, [&]<class T>(T) {
          for_elements(k.dx.device, k.dx.dims.numel(),
                       UnaryGradValue<op, T>{k.saved.as<T>(), k.dy.as<T>(), k.dx.as<T>()});
        });
      });
}

void run(Cuda, const Binary& k) {
  const Shape& dims = k.y.dims;
  Walk walk;
  for (int i = 0; i < dims.rank(); ++i) {
    walk.axis(dims[i], broadcast_step(k.a.dims, dims.rank(), i), broadcast_step(k.b.dims, dims.rank(), i));
  }
  for_op<BinaryOp::equal>(
      k.op, [&]<auto op>(Constant<op>) {
        floating(k.y.dtype, [&]<class T>(T) {
          for_elements(k.y.device, walk.numel, BinaryValue<op, T>{walk, k.a.as<T>(), k.b.as<T>(), k.y.as<T>()});
        });
      });
}

}  // namespace tandem
