// What the tests of the emulated GPU run and change: calls whose results are bytes, and the emulator's switches.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "../cuda/steps.h"
#include "tandem/core/device.h"
#include "tandem/core/dtype.h"
#include "tandem/cuda/emulator/cuda_runtime.h"

namespace tandem::test {

// A call on the emulated GPU, and all that it computes.
struct DeviceCase {
  std::string name;
  std::function<Bytes()> run;
};

// Every op of the op table, forward and backward, the optimizers, what else has kernels of its own, compiled steps.
std::vector<DeviceCase> device_cases(Dtype dtype);

// Cross entropy and softmax of rows of so many logits, and the gradient of both. The op table's are narrow.
Bytes wide_rows(int64_t width, Dtype dtype, Device device);

// The emulator is one for the process: each of these puts its switch back.
struct Seed {
  explicit Seed(unsigned seed) { emulator::set_seed(seed); }
  ~Seed() { emulator::set_seed(0); }
};
struct SkippedBarrier {
  explicit SkippedBarrier(int barrier) { emulator::skip_barrier(barrier); }
  ~SkippedBarrier() { emulator::skip_barrier(-1); }
};
struct Fault {
  explicit Fault(int calls, cudaError_t error = cudaErrorLaunchFailure) { emulator::fail_after(calls, error); }
  ~Fault() { emulator::fail_after(-1, cudaSuccess); }
};

}  // namespace tandem::test
