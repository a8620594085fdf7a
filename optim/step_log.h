// StepLog: loss and accuracy of training steps, kept on the device that computes them, so that no step waits for the
// host.
#pragma once

#include <cstdint>
#include <vector>

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
  // Of the steps since the last take(), oldest first; waits for them. Throws ValueError if there were more than the log
  // holds.
  std::vector<Record> take();

 private:
  Tensor records_, count_;
  int64_t taken_ = 0;
};

}  // namespace tandem
