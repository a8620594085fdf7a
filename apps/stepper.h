// One training step of a model, as the program runs it: compiled, on the settings' device, in their precision.
#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "tandem/core/compile.h"
#include "tandem/core/cuda.h"
#include "tandem/optim/step_log.h"
#include "trainer.h"

namespace tandem {

// The settings' precision, for this thread's products on a GPU, while it lives.
class WithPrecision {
 public:
  explicit WithPrecision(const TrainSettings& settings);
  ~WithPrecision();
  WithPrecision(const WithPrecision&) = delete;
  WithPrecision& operator=(const WithPrecision&) = delete;

 private:
  const Math before_;
};

// What a training step does with a batch {x, labels}: forward, loss, gradients, update. Returns {loss, logits}.
std::vector<Tensor> training_step(Module& model, Optimizer& optimizer, const TrainSettings& settings,
                                  const std::vector<Tensor>& batch);

// Runs the training steps of a model, compiled: gathers the batch, training_step(), notes loss and accuracy. Model,
// optimizer, loader and settings outlive it.
class Stepper {
 public:
  Stepper(Module& model, Optimizer& optimizer, DataLoader& loader, const TrainSettings& settings);
  // The step on batch `index` of `epoch`, queued where the device is a GPU.
  void step(int64_t epoch, int64_t index);
  int64_t images() const;  // of the last step
  // Of the steps since the last take(), oldest first. To be called after at most `capacity` of them.
  std::vector<StepLog::Record> take() { return log_.take(); }
  int64_t capacity() const { return log_.capacity(); }

 private:
  std::vector<Tensor> run(const std::vector<Tensor>& rows);
  // Of one batch size: what the step reads, at a fixed place.
  struct Picked {
    Tensor rows, shifts;
  };
  Module& model_;
  Optimizer& optimizer_;
  DataLoader& loader_;
  const TrainSettings& settings_;
  StepLog log_;
  std::map<int64_t, Picked> picked_;
  int64_t images_ = 0;
  CompiledStep compiled_;
};

}  // namespace tandem
