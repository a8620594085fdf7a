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

void StepLog::mark() {
  Mark mark;
  if (records_.device().kind == Device::Kind::cpu) {
    mark.records = records_.to_vector<double>();
    mark.count = count_.to_vector<int64_t>()[0];
  } else {
    if (!spare_.empty()) {
      mark = std::move(spare_.back());
      spare_.pop_back();
    } else {
      mark.records_there =
          std::make_unique<cuda::Snapshot>(records_.device(), static_cast<size_t>(records_.numel()) * sizeof(double));
      mark.count_there = std::make_unique<cuda::Snapshot>(records_.device(), sizeof(int64_t));
    }
    mark.records_there->take(records_);
    mark.count_there->take(count_);
  }
  marks_.push_back(std::move(mark));
}

std::vector<StepLog::Record> StepLog::take() {
  if (marks_.empty()) mark();
  Mark mark = std::move(marks_.front());
  marks_.pop_front();
  if (mark.records_there) {
    const double* values = static_cast<const double*>(mark.records_there->wait());
    mark.records.assign(values, values + records_.numel());
    mark.count = *static_cast<const int64_t*>(mark.count_there->wait());
  }
  const int64_t fresh = mark.count - taken_;
  if (fresh > capacity()) {
    throw ValueError(fmt::format("StepLog: expected at most {} steps since the last take(), got {}; take more often",
                                 capacity(), fresh));
  }
  std::vector<Record> records;
  for (; taken_ < mark.count; ++taken_) {
    const size_t at = static_cast<size_t>(taken_ % capacity() * 2);
    records.push_back({mark.records[at], static_cast<int64_t>(mark.records[at + 1])});
  }
  if (mark.records_there) spare_.push_back(std::move(mark));
  return records;
}

}  // namespace tandem
