// Compiled steps on a GPU: a graph's replays equal single launches and the eager step, byte for byte.
#include "steps.h"

#include <thread>

#include "../catch.hpp"
#include "../helpers.h"
#include "../training.h"
#include "tandem/core/cuda.h"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("Replayed as a CUDA graph, launch by launch and eagerly, a step gives the same bytes", "[cuda]") {
  if (no_gpu()) return;
  for (const GpuNet& net : kGpuNets) {
    INFO(net.layers);
    const Bytes eager = after_ten_steps(net, {.eager = true});
    CHECK((after_ten_steps(net, {.graph = false}) == eager));
    for (bool moving : {false, true}) CHECK((after_ten_steps(net, {}, moving) == eager));
    CHECK((after_ten_steps(net, {.fuse = false}) == eager));
  }
}

TEST_CASE("Two threads that train at once on one GPU get what each gets alone", "[cuda]") {
  if (no_gpu()) return;
  const Bytes alone[] = {after_ten_steps(kGpuNets[0], {}), after_ten_steps(kGpuNets[2], {})};
  Bytes together[2];
  std::thread other([&] { together[1] = after_ten_steps(kGpuNets[2], {}); });
  together[0] = after_ten_steps(kGpuNets[0], {});
  other.join();
  for (int i : {0, 1}) CHECK((together[i] == alone[i]));
}

TEST_CASE("A step may move to another thread, whose stream records it anew", "[cuda]") {
  if (no_gpu()) return;
  GpuTrainer moved(kGpuNets[2], {}), eager(kGpuNets[2], {.eager = true});
  const auto some_steps = [](GpuTrainer& t, uint64_t first) {
    for (uint64_t i = first; i < first + 4; ++i) (*t.step)(gpu_batch(8, i));
    cuda::synchronize(kGpu);
  };
  some_steps(moved, 0);
  std::thread([&] { some_steps(moved, 4); }).join();
  some_steps(moved, 8);
  for (uint64_t first : {0u, 4u, 8u}) some_steps(eager, first);
  CHECK((state_bytes(*moved.model) == state_bytes(*eager.model)));
}

TEST_CASE("A label out of range in a graph is an error at the next wait, and others train on", "[cuda]") {
  if (no_gpu()) return;
  GpuTrainer t(kGpuNets[0], {}), other(kGpuNets[0], {});
  for (uint64_t i = 0; i < 4; ++i) (*t.step)(gpu_batch(8, i));
  std::vector<Tensor> wrong = gpu_batch(8, 4);
  wrong[1] = Tensor::from(std::vector<int32_t>{1, 2, 3, 10, 5, -6, 7, 8}, {8}, kGpu);
  CHECK_NOTHROW((*t.step)(wrong));
  CHECK_THROWS_WITH(cuda::synchronize(kGpu), "cross_entropy: expected labels in [0, 10), got 10");
  CHECK_NOTHROW((*t.step)(gpu_batch(8, 5)));
  CHECK_NOTHROW(cuda::synchronize(kGpu));
  Bytes losses;
  for (uint64_t i = 0; i < 4; ++i) losses.push_back(bytes((*other.step)(gpu_batch(8, i))[0]));
  GpuTrainer eager(kGpuNets[0], {.eager = true});
  for (uint64_t i = 0; i < 4; ++i) CHECK((bytes((*eager.step)(gpu_batch(8, i))[0]) == losses[i]));
}
