#include "tandem/optim/step_log.h"

#include <fmt/format.h>

#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"

namespace tandem {
namespace {

int64_t checked_capacity(int64_t capacity) {
  if (capacity < 1) throw ValueError(fmt::format("StepLog: expected a capacity of at least 1, got {}", capacity));
  return capacity;
}

}  // namespace

StepLog::StepLog(int64_t capacity, Device device)
    : records_(zeros({checked_capacity(capacity), 2}, {Dtype::float64, device})),
      count_(zeros({}, {Dtype::int64, device})) {}

void StepLog::note(const Tensor& loss, const Tensor& logits, const Tensor& labels) {
  if (loss.numel() != 1 || logits.rank() != 2 || logits.dim(1) == 0 || labels.shape() != Shape{logits.dim(0)})
    throw ShapeError(
        fmt::format("StepLog: expected a loss of one element, logits[N, C] and labels[N], got {}, {} and {}",
                    describe("loss", loss), describe("logits", logits), describe("labels", labels)));
  if (!is_floating(logits.dtype()) || loss.dtype() != logits.dtype() || labels.dtype() != Dtype::int32)
    throw ValueError(
        fmt::format("StepLog: expected loss and logits of one floating dtype and labels of int32, got {}, {} "
                    "and {}",
                    name_of(loss.dtype()), name_of(logits.dtype()), name_of(labels.dtype())));
  for (const Tensor& t : {loss, logits, labels}) {
    if (!(t.device() == records_.device()))
      throw DeviceError(fmt::format("StepLog: expected tensors on {}, got one on {}", to_string(records_.device()),
                                    to_string(t.device())));
  }
  launch(NoteStep{loss, logits, labels, records_, count_});
  records_.bump_version();
  count_.bump_version();
}

std::vector<StepLog::Record> StepLog::take() {
  const int64_t count = count_.to_vector<int64_t>()[0], fresh = count - taken_;
  if (fresh > capacity()) {
    throw ValueError(fmt::format("StepLog: expected at most {} steps since the last take(), got {}; take more often",
                                 capacity(), fresh));
  }
  const std::vector<double> values = records_.to_vector<double>();
  std::vector<Record> records;
  for (; taken_ < count; ++taken_) {
    const size_t at = static_cast<size_t>(taken_ % capacity() * 2);
    records.push_back({values[at], static_cast<int64_t>(values[at + 1])});
  }
  return records;
}

}  // namespace tandem
