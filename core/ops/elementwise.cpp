#include "tandem/core/ops/check.h"

namespace tandem {
namespace {

// The broadcast shape of a and b (NumPy's rules).
Shape broadcast(const char* op, const Tensor& a, const Tensor& b) {
  const int rank = std::max(a.rank(), b.rank());
  int64_t dims[kMaxRank];
  for (int i = 0; i < rank; ++i) {
    const int ia = i - (rank - a.rank()), ib = i - (rank - b.rank());
    const int64_t na = ia < 0 ? 1 : a.shape()[ia], nb = ib < 0 ? 1 : b.shape()[ib];
    if (na != nb && na != 1 && nb != 1)
      throw ShapeError(fmt::format("{}: expected shapes that broadcast, got {} and {} ({} vs {})", op, describe("a", a),
                                   describe("b", b), na, nb));
    dims[i] = na == 1 ? nb : na;
  }
  return Shape(std::span<const int64_t>(dims, dims + rank));
}

Tensor binary(BinaryOp op, const char* name, const Tensor& a, const Tensor& b) {
  check_alike(name, {{"a", a}, {"b", b}});
  Tensor y = empty(broadcast(name, a, b), {a.dtype(), a.device()});
  launch(Binary{a, b, y, op});
  return y;
}

// Gradients {da, db} of a broadcasting op, each made only if it is needed.
template <class Da, class Db>
Grads reduce_to_inputs(bool need_a, bool need_b, const Shape& a, const Shape& b, Da da, Db db) {
  return {need_a ? sum_to(da(), a) : Tensor(), need_b ? sum_to(db(), b) : Tensor()};
}

Tensor unary(UnaryOp op, const char* name, const Tensor& x, bool from_output) {
  check_floating(name, {"x", x});
  Tensor y = empty_like(x);
  launch(Unary{x, y, op});
  return record(name, y, {x}, [op, saved = save(from_output ? y : x)](const Tensor& dy) -> Grads {
    Tensor dx = empty_like(dy);
    launch(UnaryGrad{saved, dy, dx, op});
    return {dx};
  });
}

}  // namespace

// y = a + b.  da = dy, db = dy.
Tensor add(const Tensor& a, const Tensor& b) {
  Tensor y = binary(BinaryOp::add, "add", a, b);
  return record("add", y, {a, b},
                [sa = a.shape(), sb = b.shape(), na = a.requires_grad(), nb = b.requires_grad()](const Tensor& dy) -> Grads {
                  return reduce_to_inputs(na, nb, sa, sb, [&] { return dy; }, [&] { return dy; });
                });
}

// y = a - b.  da = dy, db = -dy.
Tensor sub(const Tensor& a, const Tensor& b) {
  Tensor y = binary(BinaryOp::sub, "sub", a, b);
  return record("sub", y, {a, b},
                [sa = a.shape(), sb = b.shape(), na = a.requires_grad(), nb = b.requires_grad()](const Tensor& dy) -> Grads {
                  return reduce_to_inputs(na, nb, sa, sb, [&] { return dy; }, [&] { return neg(dy); });
                });
}

// y = a b.  da = dy b, db = dy a.
Tensor mul(const Tensor& a, const Tensor& b) {
  Tensor y = binary(BinaryOp::mul, "mul", a, b);
  return record("mul", y, {a, b},
                [a = save(a), b = save(b), na = a.requires_grad(), nb = b.requires_grad()](const Tensor& dy) -> Grads {
                  return reduce_to_inputs(na, nb, a.checked().shape(), b.checked().shape(),
                                          [&] { return mul(dy, b); }, [&] { return mul(dy, a); });
                });
}

// y = a / b.  da = dy / b, db = -dy y / b.
Tensor div(const Tensor& a, const Tensor& b) {
  Tensor y = binary(BinaryOp::div, "div", a, b);
  return record("div", y, {a, b},
                [y = save(y), b = save(b), sa = a.shape(), na = a.requires_grad(),
                 nb = b.requires_grad()](const Tensor& dy) -> Grads {
                  return reduce_to_inputs(na, nb, sa, b.checked().shape(), [&] { return div(dy, b); },
                                          [&] { return neg(div(mul(dy, y), b)); });
                });
}

// y = max(a, b) or min(a, b).  The one chosen takes dy; ties take half each.
static Tensor choose(BinaryOp op, const char* name, const Tensor& a, const Tensor& b) {
  Tensor y = binary(op, name, a, b);
  return record(name, y, {a, b},
                [op, name, a = save(a), b = save(b), na = a.requires_grad(), nb = b.requires_grad()](const Tensor& dy) -> Grads {
                  const auto share = [&](const Tensor& mine, const Tensor& other) {
                    const bool larger = op == BinaryOp::maximum;
                    return mul(dy, binary(BinaryOp::step, name, larger ? mine : other, larger ? other : mine));
                  };
                  return reduce_to_inputs(na, nb, a.checked().shape(), b.checked().shape(),
                                          [&] { return share(a, b); }, [&] { return share(b, a); });
                });
}
Tensor maximum(const Tensor& a, const Tensor& b) { return choose(BinaryOp::maximum, "maximum", a, b); }
Tensor minimum(const Tensor& a, const Tensor& b) { return choose(BinaryOp::minimum, "minimum", a, b); }

// y = scale x + shift.  dx = scale dy.
Tensor affine(const Tensor& x, double scale, double shift) {
  check_floating("affine", {"x", x});
  Tensor y = empty_like(x);
  launch(Affine{x, y, scale, shift});
  return record("affine", y, {x}, [scale](const Tensor& dy) -> Grads { return {affine(dy, scale, 0)}; });
}

Tensor neg(const Tensor& x) { return affine(x, -1, 0); }
Tensor operator/(const Tensor& x, double s) { return div(x, full({}, s, {x.dtype(), x.device()})); }
Tensor operator/(double s, const Tensor& x) { return div(full({}, s, {x.dtype(), x.device()}), x); }

// dx = dy y;  dy / x;  dy / (2 y);  dy sign(x);  dy [y > 0];  dy y (1 - y);  dy (1 - y^2).
Tensor exp(const Tensor& x) { return unary(UnaryOp::exp, "exp", x, true); }
Tensor log(const Tensor& x) { return unary(UnaryOp::log, "log", x, false); }
Tensor sqrt(const Tensor& x) { return unary(UnaryOp::sqrt, "sqrt", x, true); }
Tensor abs(const Tensor& x) { return unary(UnaryOp::abs, "abs", x, false); }
Tensor relu(const Tensor& x) { return unary(UnaryOp::relu, "relu", x, true); }
Tensor sigmoid(const Tensor& x) { return unary(UnaryOp::sigmoid, "sigmoid", x, true); }
Tensor tanh(const Tensor& x) { return unary(UnaryOp::tanh, "tanh", x, true); }

// y = x in another dtype.  dx = dy in x's.
Tensor Tensor::to(Dtype dtype) const {
  if (dtype == this->dtype()) return *this;
  Tensor y = empty(shape(), {dtype, device()});
  launch(Cast{*this, y});
  if (!is_floating(dtype)) return y;
  return record("to", y, {*this}, [from = this->dtype()](const Tensor& dy) -> Grads { return {dy.to(from)}; });
}

}  // namespace tandem
