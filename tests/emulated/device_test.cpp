// Devices that are not there, full or lost.
#include <regex>

#include "../catch.hpp"
#include "../cuda/steps.h"
#include "../helpers.h"
#include "cases.h"
#include "tandem/core/cuda.h"
#include "tandem/core/ops.h"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("A GPU that is not there is refused, and the sentence says how many are", "[emulator]") {
  CHECK(device_error([] { ones({2}, {.device = Device::cuda(1)}); }) ==
        "cuda: this machine has 1 GPU, the last is cuda:0; got cuda:1");
  CHECK_THROWS_AS(ones({2}).to(Device::cuda(1)), DeviceError);
}

TEST_CASE("Memory that cannot be had is OutOfMemory, and everything stays usable", "[emulator]") {
  const std::vector<uint8_t> right = trained_on_gpu();
  const uint64_t in_use = memory_stats(Device::Kind::cuda).bytes_in_use;
  const std::string text = device_error([] { empty({int64_t{1} << 33}, {.device = kGpu}); });
  CHECK(std::regex_match(text, std::regex("cuda: 32768 MiB for a tensor could not be had on cuda:0 \\(\\d+ MiB are in "
                                          "use\\); use a smaller batch or model")));
  CHECK_THROWS_AS(empty({int64_t{1} << 33}, {.device = kGpu}), OutOfMemory);
  CHECK(memory_stats(Device::Kind::cuda).bytes_in_use == in_use);
  CHECK(memory_stats(Device::Kind::cuda).bytes_cached == 0);  // given back for another attempt
  CHECK(trained_on_gpu() == right);

  // The driver has none once: what the pool held helps.
  const Fault fault(0, cudaErrorMemoryAllocation);
  CHECK_NOTHROW(empty({3'333'333}, {.device = kGpu}));
}

TEST_CASE("An error of the device at any call names expression, file and line, and is a DeviceError", "[emulator]") {
  const std::vector<uint8_t> right = trained_on_gpu();
  const std::regex sentence(
      R"((\w+ "\w+": )?cuda: .+ at [a-z_]+\.(cu|h):[0-9]+: cudaErrorLaunchFailure \(unspecified launch failure\))");
  int failed = 0;
  for (int calls = 0;; calls += 1 + calls / 8) {
    try {
      const Fault fault(calls);
      trained_on_gpu();
      break;  // there are no more calls
    } catch (const DeviceError& error) {
      INFO("after " << calls << " calls: " << error.what());
      CHECK(std::regex_match(error.what(), sentence));
      ++failed;
    }
  }
  CHECK(failed > 20);
  CHECK(trained_on_gpu() == right);
}

TEST_CASE("Numbers that a launch carries arrive as they are, though they look like addresses of the host",
          "[emulator]") {
  // Pairs of row numbers, as words: addresses in the 128 TiB of a process, some of each 4 GiB.
  std::vector<int32_t> rows;
  for (int32_t high = 0; high < 0x8000; ++high) {
    rows.push_back(static_cast<int32_t>((static_cast<uint32_t>(high) * 40503u) % 55000u));
    rows.push_back(high);
  }
  for (size_t at = 0; at < rows.size(); at += 700) {
    const std::vector<int32_t> some(rows.begin() + static_cast<int64_t>(at),
                                    rows.begin() + static_cast<int64_t>(std::min(at + 700, rows.size())));
    Tensor there = zeros({static_cast<int64_t>(some.size())}, {Dtype::int32, kGpu});
    there.copy_from(Tensor::from(some, there.shape()));
    REQUIRE(there.to_vector<int32_t>() == some);
  }
}
