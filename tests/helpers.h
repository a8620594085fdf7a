// What many tests need: MNIST or a reason to skip, messages of exceptions, bytes of tensors.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/core/tensor.h"

namespace tandem::test {

// The folder with MNIST ($TANDEM_DATA or the cache). Empty, after a line "SKIPPED: why" that ctest
// understands, if there is none; then the test returns. With CI=true the test fails instead.
std::optional<std::string> require_mnist();

// Where the tests of ops and of training put their tensors: the CPU, or what $TANDEM_TEST_DEVICE names. In programs
// linked with the emulated GPU that is "cuda".
Device test_device();

// The message of the tandem::Error that `f` throws; fails the test if it throws nothing or something else.
std::string error_of(const std::function<void()>& f);

// The elements as float64 (from any dtype), and as raw bytes, from any device.
std::vector<double> values(const Tensor& x);
std::vector<uint8_t> bytes(const Tensor& x);

// A floating tensor of values in [low, high) that depend on `seed` alone.
Tensor random(const Shape& shape, uint64_t seed, Dtype dtype = Dtype::float32, double low = -1, double high = 1);

// The beginning of an IDX file; its elements follow.
std::vector<uint8_t> idx_header(const std::vector<uint32_t>& extents, uint8_t type = 8);

// Everything that was warned of while it lives.
struct Warnings {
  std::vector<std::string> seen;
  WarningHandler before = set_warning_handler([this](const std::string& text) { seen.push_back(text); });
  ~Warnings() { set_warning_handler(before); }
};

// While alive, no thread can be started: each would want more stack than there is address space.
class NoThreads {
 public:
  NoThreads();
  ~NoThreads();
  NoThreads(const NoThreads&) = delete;
  NoThreads& operator=(const NoThreads&) = delete;

 private:
  size_t stack_size_;
};

// A folder of this test's own under the system's temporary folder, removed at the end.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

}  // namespace tandem::test
