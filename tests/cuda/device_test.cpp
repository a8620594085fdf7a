// Tensors, memory and refused values of a GPU.
#include <thread>

#include "../catch.hpp"
#include "../helpers.h"
#include "steps.h"
#include "tandem/core/autograd.h"
#include "tandem/core/cuda.h"
#include "tandem/core/ops.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Values = std::vector<float>;

Tensor indices(const std::vector<int32_t>& values, Device device = kGpu) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}, device);
}

}  // namespace

TEST_CASE("Moving a tensor between devices is differentiable", "[cuda]") {
  if (no_gpu()) return;
  Tensor here = Tensor::from(Values{1, -2, 3}, {3}).set_requires_grad(true);
  const Tensor there = here.to(kGpu);
  sum((there * there).to(Device::cpu())).backward();
  CHECK(here.grad().device() == Device::cpu());
  CHECK(here.grad().to_vector<float>() == Values{2, -4, 6});
  Tensor leaf = Tensor::from(Values{1, -2, 3}, {3}, kGpu).set_requires_grad(true);
  sum(leaf.to(Device::cpu()) * Tensor::from(Values{5, 6, 7}, {3})).backward();
  CHECK(leaf.grad().device() == kGpu);
  CHECK(leaf.grad().to_vector<float>() == Values{5, 6, 7});
}

TEST_CASE("Gradients and operands of another device are refused", "[cuda]") {
  if (no_gpu()) return;
  Tensor x = ones({2}, {.device = kGpu}).set_requires_grad(true);
  const std::string refusal = "expected a gradient on cuda:0, got one on cpu; move it with to()";
  CHECK(device_error([&] { (x * 2.0).backward(ones({2})); }) == "backward: " + refusal);
  CHECK(device_error([&] { x.set_grad(ones({2})); }) == "set_grad: " + refusal);
  const std::string mixed = device_error([&] { x + ones({2}); });
  CHECK(mixed.find("cpu") != std::string::npos);
  CHECK(mixed.find("cuda:0") != std::string::npos);
}

TEST_CASE("A label out of range is an error at the next wait, in the CPU's words, and of the first of them", "[cuda]") {
  if (no_gpu()) return;
  std::vector<int32_t> labels(2000, 1);
  labels[700] = 10, labels[701] = -1, labels[1999] = 77;
  const Tensor logits = random({2000, 10}, 1);
  const std::string here = device_error([&] { cross_entropy(logits, indices(labels, Device::cpu())); });
  for (int i = 0; i < 3; ++i) CHECK(device_error([&] { cross_entropy(logits.to(kGpu), indices(labels)); }) == here);
  CHECK(here == "cross_entropy: expected labels in [0, 10), got 10");
  Tensor loss;
  CHECK_NOTHROW(loss = cross_entropy(logits.to(kGpu), indices(labels)));
  CHECK_THROWS_AS(loss.item(), ValueError);
  CHECK(std::isnan(loss.item()));  // told once; the value stays wrong
  CHECK(ones({3}, {.device = kGpu}).to_vector<float>() == Values{1, 1, 1});
}

TEST_CASE("Gathering rows that do not exist reads nothing outside, and is an error at the next wait", "[cuda]") {
  if (no_gpu()) return;
  Tensor x = Tensor::from(Values{1, 2, 3, 4}, {2, 2}, kGpu).set_requires_grad(true);
  for (const int32_t stray : {2, -1, INT32_MAX, INT32_MIN}) {
    Tensor y;
    CHECK(device_error([&] {
            y = gather_rows(x, indices({1, stray, 0}));
          }) == "gather_rows: expected rows in [0, 2) of x, got " + std::to_string(stray));
    CHECK(y.to_vector<float>() == Values{3, 4, 0, 0, 1, 2});
    x.zero_grad();
    sum(y).backward();
    CHECK(x.grad().to_vector<float>() == Values{1, 1, 1, 1});
  }
}

TEST_CASE("A training loop of fixed shapes stops asking the driver for memory", "[cuda]") {
  if (no_gpu()) return;
  trained_on_gpu();
  const MemoryStats before = memory_stats(Device::Kind::cuda);
  trained_on_gpu(6);
  const MemoryStats after = memory_stats(Device::Kind::cuda);
  CHECK(after.system_allocations == before.system_allocations);
  CHECK(after.bytes_in_use == before.bytes_in_use);
  CHECK(after.bytes_peak > after.bytes_in_use);
}

TEST_CASE("Memory that another thread returns serves its first owner again", "[cuda]") {
  if (no_gpu()) return;
  constexpr int64_t kValues = 77'777;  // a size of this test's own
  Tensor x = full({kValues}, 3, {.device = kGpu});
  cuda::synchronize(kGpu);
  float last = 0;
  std::thread([&] {
    last = (x * 2.0).to_vector<float>()[kValues - 1];
    x = Tensor();
  }).join();
  CHECK(last == 6);
  const uint64_t before = memory_stats(Device::Kind::cuda).system_allocations;
  x = full({kValues}, 4, {.device = kGpu});
  CHECK(memory_stats(Device::Kind::cuda).system_allocations == before);
  CHECK(x.to_vector<float>()[0] == 4);
}
