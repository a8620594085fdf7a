#include "tandem/core/ops/check.h"

namespace tandem {

// y = x mask / (1 - p).  dx = dy mask / (1 - p), the mask drawn again.
Tensor dropout(const Tensor& x, double p, uint64_t key, const Tensor& call) {
  check_floating("dropout", {"x", x});
  if (!(p >= 0 && p < 1)) throw ValueError(fmt::format("dropout: expected p in [0, 1), got {}", p));
  check_dtype("dropout", {"call", call}, Dtype::int64);
  if (call.numel() != 1) throw ShapeError(fmt::format("dropout: expected call of 1 element, got {}", describe("call", call)));
  Tensor y = empty_like(x);
  launch(DropoutApply{x, call, y, key, p});
  return record("dropout", y, {x}, [call = call.clone(), key, p](const Tensor& dy) -> Grads {
    Tensor dx = empty_like(dy);
    launch(DropoutApply{dy, call, dx, key, p});
    return {dx};
  });
}

}  // namespace tandem
