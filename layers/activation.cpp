#include "tandem/layers/activation.h"

#include <fmt/format.h>

#include "tandem/core/error.h"
#include "tandem/core/random.h"

namespace tandem {

Dropout::Dropout(double p) : p_(p), call_(zeros({}, {Dtype::int64})) {
  if (!(p >= 0 && p < 1)) throw ValueError(fmt::format("Dropout: expected p in [0, 1), got {}", p));
}

Tensor Dropout::forward(const Tensor& x) {
  if (!is_training()) return x;
  const Tensor y =
      labelled("Dropout", [&] { return dropout(x, p_, Stream(seed(), "dropout/" + name()).key(), call_); });
  call_.increment();
  return y;
}

std::string Dropout::text() const { return fmt::format("dropout:{}", p_); }

std::unique_ptr<Module> Dropout::clone() const { return copy_of(*this, p_); }

}  // namespace tandem
