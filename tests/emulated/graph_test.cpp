// Compiled steps on a device whose calls fail.
#include "../catch.hpp"
#include "../cuda/steps.h"
#include "../helpers.h"
#include "../training.h"
#include "cases.h"
#include "tandem/core/cuda.h"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("A graph's replay makes few calls to the driver, and reads the learning rate anew", "[emulator]") {
  GpuTrainer t(kGpuNets[0], {}), still(kGpuNets[0], {}), launched(kGpuNets[0], {.graph = false});
  const std::vector<Tensor> in = gpu_batch(8, 1);
  for (int i = 0; i < 5; ++i) {
    for (GpuTrainer* each : {&t, &still, &launched}) (*each->step)(in);
  }
  const auto weights = [&] {
    Bytes all;
    for (const Parameter& p : still.model->parameters()) all.push_back(bytes(p.tensor));
    return all;
  };
  const Bytes before = weights();
  still.optimizer->set_lr(0);
  {
    const Fault after_a_few(8);
    CHECK_NOTHROW((*t.step)(in));
    CHECK_THROWS_AS((*launched.step)(in), DeviceError);
  }
  (*still.step)(in);
  CHECK((weights() == before));
  CHECK((state_bytes(*t.model) != state_bytes(*still.model)));
}

TEST_CASE("Whatever call fails while a step is recorded, captured and replayed, others train on", "[emulator]") {
  const Bytes right = after_ten_steps(kGpuNets[0], {});
  // The calls before one that fails; none fails beyond the last. Returns the type of what was thrown.
  const auto attempt = [](int calls, cudaError_t error) -> std::string {
    const Fault fault(calls, error);
    try {
      GpuTrainer t(kGpuNets[0], {});
      for (uint64_t i = 0; i < 6; ++i) (*t.step)(gpu_batch(8, i));
      cuda::synchronize(kGpu);
    } catch (const OutOfMemory&) {
      return "OutOfMemory";
    } catch (const DeviceError&) {
      return "DeviceError";
    }
    return "";
  };
  int all_calls = 0;
  for (std::string thrown = "DeviceError"; thrown != ""; all_calls += 1 + all_calls / 10) {
    thrown = attempt(all_calls, cudaErrorLaunchFailure);
    REQUIRE((thrown == "DeviceError" || (thrown == "" && all_calls > 100)));
  }
  CHECK((after_ten_steps(kGpuNets[0], {}) == right));
  int failed = 0;
  for (int calls = 0; calls < all_calls; calls += 1 + calls / 10) {
    failed += attempt(calls, cudaErrorMemoryAllocation) == "OutOfMemory";
    if (calls % 5 == 0) CHECK((after_ten_steps(kGpuNets[0], {}) == right));
  }
  CHECK(failed > 10);
  CHECK((after_ten_steps(kGpuNets[0], {}) == right));
}
