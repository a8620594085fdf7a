#include "tandem/core/ops/check.h"

namespace tandem {
namespace {

// Kernels work along the last axis; any other is brought there and back.
Tensor softmax_along(const Tensor& x, int axis, bool log, const char* name) {
  check_floating(name, {"x", x});
  const int along = x.shape().axis(axis, name), last = x.rank() - 1;
  if (along != last) {
    std::vector<int> swap(static_cast<size_t>(x.rank()));
    for (int i = 0; i <= last; ++i) swap[i] = i;
    std::swap(swap[along], swap[last]);
    return permute(softmax_along(permute(x, swap), -1, log, name), swap);
  }
  Tensor y = empty_like(x);
  launch(Softmax{x, y, log});
  return record(name, y, {x}, [y = save(y), log](const Tensor& dy) -> Grads {
    Tensor dx = empty_like(dy);
    launch(SoftmaxGrad{y, dy, dx, log});
    return {dx};
  });
}

void check_labels(const Tensor& logits, const Tensor& labels) {
  if (logits.rank() != 2 || labels.rank() != 1 || logits.dim(0) != labels.dim(0) || logits.dim(1) == 0)
    throw ShapeError(fmt::format("cross_entropy: expected logits[N, C] and labels[N], got {} and {}",
                                 describe("logits", logits), describe("labels", labels)));
  check_index(labels, logits.dim(1), Asker::cross_entropy);
}

}  // namespace

// y = exp(x - max) / sum.  dx = y (dy - sum(dy y)).
Tensor softmax(const Tensor& x, int axis) { return softmax_along(x, axis, false, "softmax"); }
// y = x - log sum exp x.  dx = dy - exp(y) sum(dy).
Tensor log_softmax(const Tensor& x, int axis) { return softmax_along(x, axis, true, "log_softmax"); }

// loss = -sum t log softmax(x), t = (1 - s) onehot(label) + s / C.  dx = dloss (softmax(x) - t).
Tensor cross_entropy(const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& options) {
  check_floating("cross_entropy", {"logits", logits});
  check_dtype("cross_entropy", {"labels", labels}, Dtype::int32);
  check_labels(logits, labels);
  const double smoothing = options.label_smoothing;
  if (!(smoothing >= 0 && smoothing <= 1))
    throw ValueError(fmt::format("cross_entropy: expected label_smoothing in [0, 1], got {}", smoothing));
  Tensor per_row = empty({logits.dim(0)}, {logits.dtype(), logits.device()});
  launch(CrossEntropy{logits, labels, per_row, smoothing});
  const bool averaged = options.reduction == Reduction::mean;
  Tensor loss = options.reduction == Reduction::none ? per_row : averaged ? mean(per_row) : sum(per_row);
  const double scale = averaged ? 1.0 / static_cast<double>(std::max<int64_t>(logits.dim(0), 1)) : 1.0;
  return record("cross_entropy", loss, {logits},
                [x = save(logits), labels = save(labels), smoothing, scale](const Tensor& dy) -> Grads {
                  Tensor dx = empty_like(x);
                  launch(CrossEntropyGrad{x, labels, dy, dx, smoothing, scale});
                  return {dx};
                });
}

}  // namespace tandem
