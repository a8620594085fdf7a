#include "helpers.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iostream>

#include "catch.hpp"
#include "tandem/core/cuda.h"
#include "tandem/core/error.h"
#include "tandem/core/random.h"
#include "tandem/data/mnist.h"

namespace tandem::test {

std::optional<std::string> require_mnist() {
  if (auto dir = find_mnist("mnist")) return dir;
  const char* ci = std::getenv("CI");
  if (ci && std::string(ci) == "true") FAIL("CI=true, but MNIST is neither in TANDEM_DATA nor in the cache");
  std::cout << "SKIPPED: MNIST is neither in TANDEM_DATA nor in the cache; `tandem data fetch mnist` gets it"
            << std::endl;
  return std::nullopt;
}

Device test_device() {
  static const Device device = [] {
    const char* name = std::getenv("TANDEM_TEST_DEVICE");
    return Device::parse(name && *name ? name : "cpu");
  }();
  return device;
}

std::string error_of(const std::function<void()>& f) {
  try {
    f();
    if (test_device().kind == Device::Kind::cuda) cuda::synchronize(test_device());
  } catch (const Error& error) {
    return error.what();
  }
  FAIL("expected an exception, but none was thrown");
  return "";
}

std::vector<double> values(const Tensor& x) { return x.to(Dtype::float64).to_vector<double>(); }

std::vector<uint8_t> bytes(const Tensor& x) {
  const Tensor host = x.detach().to(Device::cpu());
  const View view = host;
  std::vector<uint8_t> out(static_cast<size_t>(x.numel() * size_of(x.dtype())));
  if (!out.empty()) std::memcpy(out.data(), view.data, out.size());
  return out;
}

Tensor random(const Shape& shape, uint64_t seed, Dtype dtype, double low, double high) {
  Tensor x = empty(shape, {.dtype = dtype});
  fill_uniform(x, low, high, Stream(seed, "test"));
  return x;
}

std::vector<uint8_t> idx_header(const std::vector<uint32_t>& extents, uint8_t type) {
  std::vector<uint8_t> bytes = {0, 0, type, static_cast<uint8_t>(extents.size())};
  for (uint32_t extent : extents) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<uint8_t>(extent >> shift));
  }
  return bytes;
}

NoThreads::NoThreads() {
  pthread_attr_t attributes;
  pthread_getattr_default_np(&attributes);
  pthread_attr_getstacksize(&attributes, &stack_size_);
  pthread_attr_setstacksize(&attributes, size_t{1} << 56);
  pthread_setattr_default_np(&attributes);
}

NoThreads::~NoThreads() {
  pthread_attr_t attributes;
  pthread_getattr_default_np(&attributes);
  pthread_attr_setstacksize(&attributes, stack_size_);
  pthread_setattr_default_np(&attributes);
}

TempDir::TempDir() {
  static std::atomic<int> count = 0;
  path_ = std::filesystem::temp_directory_path() /
          ("tandem-test-" + std::to_string(getpid()) + "-" + std::to_string(count++));
  std::filesystem::create_directories(path_);
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

}  // namespace tandem::test
