// Tensors, memory and errors of a device, on the emulated GPU.
#include <regex>
#include <thread>

#include "../catch.hpp"
#include "../helpers.h"
#include "cases.h"
#include "tandem/core/autograd.h"
#include "tandem/core/cuda.h"
#include "tandem/core/ops.h"
#include "tandem/layers/build.h"
#include "tandem/optim/optimizer.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Values = std::vector<float>;
const Device kGpu = Device::cuda();

Tensor indices(const std::vector<int32_t>& values, Device device = kGpu) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}, device);
}

// What the GPU's work of this thread, and then the host, throw.
std::string device_error(const std::function<void()>& f) {
  return error_of([&] {
    f();
    cuda::synchronize(kGpu);
  });
}

// Some steps of a small network; its parameters.
std::vector<uint8_t> trained(int steps = 3) {
  const auto model = build("conv:4:k=3,bn,relu,dense:10", {6, 6, 2}, {.seed = 1});
  model->to(kGpu);
  SGD sgd(model->parameters(), {.lr = 0.1, .momentum = 0.9});
  for (int i = 0; i < steps; ++i) {
    sgd.zero_grad();
    const Tensor x = random({5, 6, 6, 2}, static_cast<uint64_t>(i)).to(kGpu);
    cross_entropy((*model)(x), indices({0, 1, 2, 3, 9})).backward();
    sgd.step();
  }
  std::vector<uint8_t> all;
  for (const auto& [name, tensor] : model->state_dict()) {
    const std::vector<uint8_t> one = bytes(tensor);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

}  // namespace

TEST_CASE("Moving a tensor between devices is differentiable", "[emulator]") {
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

TEST_CASE("Gradients and operands of another device are refused", "[emulator]") {
  Tensor x = ones({2}, {.device = kGpu}).set_requires_grad(true);
  const std::string refusal = "expected a gradient on cuda:0, got one on cpu; move it with to()";
  CHECK(device_error([&] { (x * 2.0).backward(ones({2})); }) == "backward: " + refusal);
  CHECK(device_error([&] { x.set_grad(ones({2})); }) == "set_grad: " + refusal);
  const std::string mixed = device_error([&] { x + ones({2}); });
  CHECK(mixed.find("cpu") != std::string::npos);
  CHECK(mixed.find("cuda:0") != std::string::npos);
}

TEST_CASE("A GPU that is not there is refused, and the sentence says how many are", "[emulator]") {
  CHECK(device_error([] { ones({2}, {.device = Device::cuda(1)}); }) ==
        "cuda: this machine has 1 GPU, the last is cuda:0; got cuda:1");
  CHECK_THROWS_AS(ones({2}).to(Device::cuda(1)), DeviceError);
}

TEST_CASE("A label out of range is an error at the next wait, in the CPU's words, and of the first of them",
          "[emulator]") {
  std::vector<int32_t> labels(2000, 1);
  labels[700] = 10, labels[701] = -1, labels[1999] = 77;
  const Tensor logits = random({2000, 10}, 1);
  const std::string here = device_error([&] { cross_entropy(logits, indices(labels, Device::cpu())); });
  for (unsigned order : {0u, 1u, 2u}) {
    const Seed seed(order);
    CHECK(device_error([&] { cross_entropy(logits.to(kGpu), indices(labels)); }) == here);
  }
  CHECK(here == "cross_entropy: expected labels in [0, 10), got 10");
  Tensor loss;
  CHECK_NOTHROW(loss = cross_entropy(logits.to(kGpu), indices(labels)));
  CHECK_THROWS_AS(loss.item(), ValueError);
  CHECK(std::isnan(loss.item()));  // told once; the value stays wrong
  CHECK(ones({3}, {.device = kGpu}).to_vector<float>() == Values{1, 1, 1});
}

TEST_CASE("Gathering rows that do not exist reads nothing outside, and is an error at the next wait", "[emulator]") {
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

TEST_CASE("A training loop of fixed shapes stops asking the driver for memory", "[emulator]") {
  trained();
  const MemoryStats before = memory_stats(Device::Kind::cuda);
  trained(6);
  const MemoryStats after = memory_stats(Device::Kind::cuda);
  CHECK(after.system_allocations == before.system_allocations);
  CHECK(after.bytes_in_use == before.bytes_in_use);
  CHECK(after.bytes_peak > after.bytes_in_use);
}

TEST_CASE("Memory that another thread returns serves its first owner again", "[emulator]") {
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

TEST_CASE("Memory that cannot be had is OutOfMemory, and everything stays usable", "[emulator]") {
  const std::vector<uint8_t> right = trained();
  const uint64_t in_use = memory_stats(Device::Kind::cuda).bytes_in_use;
  const std::string text = device_error([] { empty({int64_t{1} << 33}, {.device = kGpu}); });
  CHECK(std::regex_match(text, std::regex("cuda: 32768 MiB for a tensor could not be had on cuda:0 \\(\\d+ MiB are in "
                                          "use\\); use a smaller batch or model")));
  CHECK_THROWS_AS(empty({int64_t{1} << 33}, {.device = kGpu}), OutOfMemory);
  CHECK(memory_stats(Device::Kind::cuda).bytes_in_use == in_use);
  CHECK(memory_stats(Device::Kind::cuda).bytes_cached == 0);  // given back for another attempt
  CHECK(trained() == right);

  // The driver has none once: what the pool held helps.
  const Fault fault(0, cudaErrorMemoryAllocation);
  CHECK_NOTHROW(empty({3'333'333}, {.device = kGpu}));
}

TEST_CASE("An error of the device at any call names expression, file and line, and is a DeviceError", "[emulator]") {
  const std::vector<uint8_t> right = trained();
  const std::regex sentence(
      R"((\w+ "\w+": )?cuda: .+ at [a-z_]+\.(cu|h):[0-9]+: cudaErrorLaunchFailure \(unspecified launch failure\))");
  int failed = 0;
  for (int calls = 0;; calls += 1 + calls / 8) {
    try {
      const Fault fault(calls);
      trained();
      break;  // there are no more calls
    } catch (const DeviceError& error) {
      INFO("after " << calls << " calls: " << error.what());
      CHECK(std::regex_match(error.what(), sentence));
      ++failed;
    }
  }
  CHECK(failed > 20);
  CHECK(trained() == right);
}
