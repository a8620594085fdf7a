// Training steps of small networks on a GPU, real or emulated, and all bytes that they leave behind.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "../helpers.h"
#include "tandem/core/compile.h"
#include "tandem/layers/sequential.h"
#include "tandem/optim/optimizer.h"
#include "tandem/optim/step_log.h"

namespace tandem::test {

using Bytes = std::vector<std::vector<uint8_t>>;  // of several tensors

inline const Device kGpu = Device::cuda();

// Whether there is none; then says "SKIPPED: ...", and the test returns.
bool no_gpu();

// What the GPU's work of this thread, and then the host, throw.
std::string device_error(const std::function<void()>& f);

struct GpuNet {
  std::string layers;
  bool adam = false;
  Dtype dtype = Dtype::float32;
};
extern const std::vector<GpuNet> kGpuNets;

// A model and its step; where the loss goes is another tensor than the step's result.
struct GpuTrainer {
  GpuTrainer(const GpuNet& net, CompileOptions options);
  std::vector<Tensor> run(const std::vector<Tensor>& in);

  std::unique_ptr<Sequential> model;
  std::unique_ptr<Optimizer> optimizer;
  StepLog log;
  std::unique_ptr<CompiledStep> step;
};
std::vector<Tensor> gpu_batch(int64_t n, uint64_t seed, Dtype dtype = Dtype::float32);

// Everything ten steps leave behind, with another lr in each, a tail of three rows in some, and inputs that either keep
// their address, as a loader's do, or are other tensors each time.
Bytes after_ten_steps(const GpuNet& net, const CompileOptions& options, bool moving = false);

// Some eager steps of a small network; its parameters.
std::vector<uint8_t> trained_on_gpu(int steps = 3);

}  // namespace tandem::test
