// StepLog: loss and accuracy of training steps, kept on the device that computes them, so that no step waits for the
// host.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "tandem/core/cuda.h"
#include "tandem/core/tensor.h"

namespace tandem {

class StepLog {
 public:
  struct Record {
    double loss;      // as the loss function gave it
    int64_t correct;  // rows whose largest logit is at their label
  };

  // Holds the last `capacity` >= 1 steps (ValueError).
  explicit StepLog(int64_t capacity, Device device = {});

  // Part of the step, compiled or not: loss of one element, logits[N, C] of its dtype, labels int32 [N], all on the
  // log's device. Throws ShapeError, ValueError or DeviceError.
  void note(const Tensor& loss, const Tensor& logits, const Tensor& labels);
  int64_t capacity() const { return records_.dim(0); }
  // Ends a row of steps. On a GPU nobody waits for them yet.
  void mark();
  // Of the steps before the oldest mark that was not taken, or with none of those noted so far, and since the last
  // take(): oldest first. Waits for them, not for later ones. Throws ValueError if there were more than the log holds.
  std::vector<Record> take();

 private:
  // The log at a mark.
  struct Mark {
    std::vector<double> records;
    int64_t count = 0;
    std::unique_ptr<cuda::Snapshot> records_there, count_there;  // on a GPU: where the above is to come from
  };
  Tensor records_, count_;
  std::deque<Mark> marks_;
  std::vector<Mark> spare_;
  int64_t taken_ = 0;
};

}  // namespace tandem
