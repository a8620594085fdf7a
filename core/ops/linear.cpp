#include "tandem/core/cuda.h"
#include "tandem/core/ops/check.h"

namespace tandem {

// y = a b.  da = dy b^T, db = a^T dy.
Tensor matmul(const Tensor& a, const Tensor& b) {
  check_alike("matmul", {{"a", a}, {"b", b}});
  if (a.rank() != 2 || b.rank() != 2)
    throw ShapeError(
        fmt::format("matmul: expected a[M, K] and b[K, N], got {} and {}", describe("a", a), describe("b", b)));
  if (a.dim(1) != b.dim(0))
    throw ShapeError(fmt::format("matmul: expected a[M, K] and b[K, N], got {} and {} (K: {} vs {})", describe("a", a),
                                 describe("b", b), a.dim(1), b.dim(0)));
  Tensor y = empty({a.dim(0), b.dim(1)}, {a.dtype(), a.device()});
  launch(MatMul{a, b, y, false, false, cuda::math()});
  return record("matmul", y, {a, b},
                [a = save(a), b = save(b), na = a.requires_grad(), nb = b.requires_grad()](const Tensor& dy) -> Grads {
                  Grads grads(2);
                  if (na) launch(MatMul{dy, b, grads[0] = empty_like(a), false, true, cuda::math()});
                  if (nb) launch(MatMul{a, dy, grads[1] = empty_like(b), true, false, cuda::math()});
                  return grads;
                });
}

Tensor bias_grad(const Tensor& dy) {
  return sum_over_rows(dy, {dy.dim(-1)}, dy.dtype(), Dtype::float64, [&](Tensor& db) { launch(SumRows{dy, db}); });
}

// y = x w^T + b.  dx = dy w, dw = dy^T x, db = sum of dy's rows.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  check_alike("linear", {{"x", x}, {"weight", weight}, {"bias", bias}});
  if (x.rank() != 2 || weight.rank() != 2)
    throw ShapeError(fmt::format("linear: expected x[N, I] and weight[O, I], got {} and {}", describe("x", x),
                                 describe("weight", weight)));
  if (x.dim(1) != weight.dim(1))
    throw ShapeError(fmt::format("linear: expected x[N, I] and weight[O, I], got {} and {} (I: {} vs {})",
                                 describe("x", x), describe("weight", weight), x.dim(1), weight.dim(1)));
  if (bias.defined() && bias.shape() != Shape{weight.dim(0)})
    throw ShapeError(fmt::format("linear: expected bias[{}] for {}, got {}", weight.dim(0), describe("weight", weight),
                                 describe("bias", bias)));
  Tensor y = empty({x.dim(0), weight.dim(0)}, {x.dtype(), x.device()});
  launch(Linear{x, weight, bias, y, x.mostly_zero(), cuda::math()});
  return record("linear", y, {x, weight, bias},
                [x = save(x), w = save(weight), need_x = x.requires_grad(), need_w = weight.requires_grad(),
                 need_b = bias.defined() && bias.requires_grad()](const Tensor& dy) -> Grads {
                  Grads grads(3);
                  if (need_x) launch(LinearDx{dy, w, grads[0] = empty_like(x), cuda::math()});
                  if (need_w)
                    grads[1] = sum_over_rows(x, w.checked().shape(), dy.dtype(), dy.dtype(), [&](Tensor& dw) {
                      launch(LinearDw{dy, x, dw, x.checked().mostly_zero(), cuda::math()});
                    });
                  if (need_b) grads[2] = bias_grad(dy);
                  return grads;
                });
}

}  // namespace tandem
