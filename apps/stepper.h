// One training step of a model, as the program runs it: compiled, on the settings' device, in their precision.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <utility>
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

// What a training step does with a batch {x, labels}: forward, loss, gradients, update at the optimizer's learning rate
// or at rates[at]. Returns {loss, logits}.
std::vector<Tensor> training_step(Module& model, Optimizer& optimizer, const TrainSettings& settings,
                                  const std::vector<Tensor>& batch, const Tensor& rates = {}, int64_t at = 0);

// Runs the training steps of a model, compiled: gathers the batch, training_step(), notes loss and accuracy. On a GPU
// several steps are one compiled step, and so one CUDA graph. Model, optimizer, loader and settings outlive it.
class Stepper {
 public:
  Stepper(Module& model, Optimizer& optimizer, DataLoader& loader, const TrainSettings& settings);
  // Steps `first`, `first` + 1, ... of training, one at each learning rate, at most capacity() of them; on a GPU they
  // are queued.
  void run(int64_t first, const std::vector<double>& rates);
  // Of the oldest run() that was not taken, oldest first; waits for it.
  std::vector<StepLog::Record> take() { return log_.take(); }
  int64_t capacity() const { return log_.capacity(); }
  // How many runs may be queued behind the one that is taken, so that nothing idles meanwhile.
  size_t ahead() const { return device_.kind == Device::Kind::cuda ? 1 : 0; }

 private:
  // What so many steps on batches of one size read, at a fixed place.
  struct Inputs {
    Tensor rates, rows, shifts;
  };
  void queue(int64_t first, std::span<const double> rates);
  Inputs& inputs_of(int64_t steps, int64_t images);
  std::vector<Tensor> steps(const std::vector<Tensor>& inputs);
  Module& model_;
  Optimizer& optimizer_;
  DataLoader& loader_;
  const TrainSettings& settings_;
  const Device device_;
  const int64_t together_;  // steps
  StepLog log_;
  std::map<std::pair<int64_t, int64_t>, Inputs> inputs_;
  CompiledStep compiled_;
};

}  // namespace tandem
