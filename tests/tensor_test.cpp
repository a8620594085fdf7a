// Tensors and shapes: creation, handles, copies, dtypes, text, memory.
#include "tandem/core/tensor.h"

#include <cmath>
#include <limits>
#include <numeric>
#include <sstream>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"
#include "tandem/core/ops.h"

using namespace tandem;
using namespace tandem::test;

using Floats = std::vector<float>;
using Values = std::vector<double>;

TEST_CASE("A counter counts, and nothing else does") {
  Tensor n = zeros({}, {Dtype::int64});
  n.increment();
  n.increment();
  CHECK(n.item() == 2);
  CHECK(error_of([] { zeros({}).increment(); }) == "increment: expected an int64 of one element, got float32 []");
  CHECK(error_of([] { zeros({2}, {Dtype::int64}).increment(); }) ==
        "increment: expected an int64 of one element, got int64 [2]");
}

TEST_CASE("from copies host values, to_vector returns them", "[tensor]") {
  Floats host{1, 2, 3, 4, 5, 6};
  const Tensor x = Tensor::from(host, {2, 3});
  host[0] = 99;
  CHECK(x.shape() == Shape{2, 3});
  CHECK(x.rank() == 2);
  CHECK(x.dim(1) == 3);
  CHECK(x.dim(-2) == 2);
  CHECK(x.dtype() == Dtype::float32);
  CHECK(x.to_vector<float>() == Floats{1, 2, 3, 4, 5, 6});
  CHECK(error_of([] { Tensor::from(Floats{1, 2}, {3}); }) == "from: expected 3 values for shape [3], got 2");
  CHECK(error_of([&] { x.dim(2); }) == "dim: expected an axis in [-2, 2), got 2 for x[2, 3]");
}

TEST_CASE("from_strided copies any strides", "[tensor]") {
  const Floats host{0, 1, 2, 3, 4, 5};
  const auto strided = [&](const Shape& shape, std::vector<int64_t> strides, int64_t offset = 0) {
    return Tensor::from_strided(host.data() + offset, shape, std::span<const int64_t>(strides)).to_vector<float>();
  };
  CHECK(strided({3, 2}, {1, 3}) == Floats{0, 3, 1, 4, 2, 5});  // transposed
  CHECK(strided({2, 2}, {3, 1}, 1) == Floats{1, 2, 4, 5});     // a column range
  CHECK(strided({2, 3}, {0, 1}) == Floats{0, 1, 2, 0, 1, 2});  // expanded
  CHECK(strided({3}, {-2}, 5) == Floats{5, 3, 1});             // backwards
  CHECK(strided({}, {}) == Floats{0});
  CHECK(strided({0, 2}, {1, 1}).empty());
  CHECK(error_of([&] { strided({2, 3}, {1}); }) == "from_strided: expected 2 strides for shape [2, 3], got 1");
}

TEST_CASE("Creation", "[tensor]") {
  CHECK(zeros({2}).to_vector<float>() == Floats{0, 0});
  CHECK(ones({2}, {.dtype = Dtype::int32}).to_vector<int32_t>() == std::vector<int32_t>{1, 1});
  CHECK(full({}, 2.5, {.dtype = Dtype::float64}).item() == 2.5);
  CHECK(zeros_like(ones({3}, {.dtype = Dtype::uint8})).dtype() == Dtype::uint8);
  CHECK(empty({0, 5}).numel() == 0);
  CHECK(reinterpret_cast<uintptr_t>(empty({3}).data<float>()) % 64 == 0);
}

TEST_CASE("Casts between every pair of dtypes keep small integers", "[tensor]") {
  const Dtype all[] = {Dtype::float32, Dtype::float64, Dtype::int32, Dtype::int64, Dtype::uint8};
  for (Dtype from : all) {
    for (Dtype to : all) {
      INFO(name_of(from) << " to " << name_of(to));
      const Tensor x = Tensor::from(Values{0, 1, 200}, {3}).to(from).to(to);
      CHECK(x.dtype() == to);
      CHECK(values(x) == Values{0, 1, 200});
    }
  }
  CHECK(Tensor::from(Values{0.1}, {1}).to(Dtype::float32).item() == static_cast<double>(0.1f));
}

TEST_CASE("Copying a Tensor copies the handle, clone copies the elements", "[tensor]") {
  Tensor x = ones({2});
  Tensor handle = x, copy = x.clone();
  x.fill(3);
  CHECK(handle.to_vector<float>() == Floats{3, 3});
  CHECK(copy.to_vector<float>() == Floats{1, 1});
  CHECK(x.reshape({1, 2}).data<float>() == x.data<float>());
  CHECK(x.to(Dtype::float32).data<float>() == x.data<float>());
  CHECK(x.to(Device::cpu()).data<float>() == x.data<float>());
}

TEST_CASE("copy_from converts dtypes and checks shapes", "[tensor]") {
  Tensor x = zeros({2});
  x.copy_from(Tensor::from(Values{1.5, -2}, {2}));
  CHECK(x.to_vector<float>() == Floats{1.5, -2});
  CHECK(error_of([&] { x.copy_from(zeros({3})); }) == "copy_from: expected source[2], got source[3]");
}

TEST_CASE("Access to elements checks dtype and count", "[tensor]") {
  const Tensor x = zeros({2});
  CHECK(error_of([&] { x.data<double>(); }) ==
        "data: expected float64, got a tensor [2] of float32; convert it with to(Dtype::float64)");
  CHECK(error_of([&] { x.item(); }) == "item: expected a single element, got [2]");
  CHECK(error_of([] { Tensor().shape(); }) == "tensor: an empty Tensor was used; give it values first");
  CHECK_FALSE(Tensor().defined());
}

TEST_CASE("Every in-place change moves the version", "[tensor]") {
  Tensor x = zeros({2});
  const uint64_t start = x.version();
  x.fill(1);
  x.copy_from(ones({2}));
  x.mutable_data<float>();
  x.reshape({1, 2}).fill(2);  // a view: the same storage
  CHECK(x.version() == start + 4);
  CHECK(x.clone().version() != x.version());
}

TEST_CASE("reshape and detach keep the hint of zeros, other ops do not", "[tensor]") {
  Tensor x = zeros({2, 3});
  CHECK(!x.mostly_zero());
  x.set_mostly_zero(true);
  CHECK(x.mostly_zero());
  CHECK(x.reshape({3, 2}).mostly_zero());
  CHECK(x.detach().mostly_zero());
  CHECK(!x.clone().mostly_zero());
  CHECK(!exp(x).mostly_zero());
  CHECK(!x.set_mostly_zero(false).mostly_zero());
}

TEST_CASE("Shapes", "[tensor]") {
  CHECK(to_string(Shape{64, 784}) == "[64, 784]");
  CHECK(to_string(Shape{}) == "[]");
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{2, 0, 3}.numel() == 0);
  CHECK(Shape{2, 3}.with(0, 5) == Shape{5, 3});
  CHECK(Shape{2, 3}.without(0) == Shape{3});
  CHECK(Shape{2, 3}.insert(2, 4) == Shape{2, 3, 4});
  CHECK_FALSE(Shape{2, 3} == Shape{2, 3, 1});
  CHECK(error_of([] { Shape{2, -3}; }) == "shape: expected extents >= 0, got -3 for axis 1");
  CHECK(error_of([] { Shape{1, 1, 1, 1, 1, 1, 1}; }) == "shape: expected at most 6 axes, got 7");
  const int64_t huge = int64_t{1} << 32;
  CHECK(error_of([&] { Shape{huge, huge}; }) == "shape: [4294967296, 4294967296] has too many elements");
  CHECK_THROWS_AS((Shape{huge, huge, 0}), ShapeError);
}

TEST_CASE("Text of tensors", "[tensor]") {
  CHECK(to_string(Tensor::from(Floats{1, 2.5, -3, 4}, {2, 2})) == "[2, 2] float32 cpu\n[[1, 2.5],\n [-3, 4]]");
  CHECK(to_string(Tensor::from(std::vector<int32_t>{7}, {})) == "[] int32 cpu\n7");
  Floats twenty(20);
  std::iota(twenty.begin(), twenty.end(), 0.0f);
  CHECK(to_string(Tensor::from(twenty, {20})) == "[20] float32 cpu\n[0, 1, 2, ..., 17, 18, 19]");
  std::ostringstream out;
  out << zeros({1});
  CHECK(out.str() == "[1] float32 cpu\n[0]");
  CHECK(to_string(zeros({0})) == "[0] float32 cpu\n[]");
  CHECK(to_string(Tensor()) == "empty tensor");
  CHECK(describe("x", zeros({32, 784})) == "x[32, 784]");
}

TEST_CASE("Devices", "[tensor]") {
  CHECK(Device::parse("cpu") == Device::cpu());
  CHECK(Device::parse("cuda") == Device::cuda(0));
  CHECK(Device::parse("cuda:3") == Device::cuda(3));
  CHECK(to_string(Device::cuda(1)) == "cuda:1");
  for (const char* text : {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cpu:0", "cuda:1 ", "cuda:999"}) {
    INFO(text);
    CHECK_THROWS_AS(Device::parse(text), ValueError);
  }
}

#if !TANDEM_CUDA
TEST_CASE("A build without CUDA says so", "[tensor]") {
  CHECK_THROWS_AS(require_device(Device::cuda()), DeviceError);
  CHECK_THROWS_AS(zeros({2}, {.device = Device::cuda()}), DeviceError);
  CHECK_THROWS_AS(zeros({2}).to(Device::cuda()), DeviceError);
}
#endif

TEST_CASE("Memory that cannot be had is an OutOfMemory with a sentence", "[tensor][memory]") {
  const MemoryStats before = memory_stats();
  const std::string text = error_of([] { empty({int64_t{1} << 50}); });
  CHECK(text.find("memory: 4294967296.0 MiB for a tensor could not be had (") == 0);
  CHECK(text.find("use a smaller batch or model") != std::string::npos);
  CHECK_THROWS_AS(empty({int64_t{1} << 50}), OutOfMemory);
  CHECK(memory_stats().bytes_in_use == before.bytes_in_use);
  CHECK(ones({2}).to_vector<float>() == Floats{1, 1});  // life goes on
}

TEST_CASE("The pool counts and reuses memory", "[tensor][memory]") {
  release_cached_memory();
  const MemoryStats before = memory_stats();
  CHECK(before.bytes_cached == 0);
  { const Tensor x = empty({1000000}); }
  const MemoryStats after = memory_stats();
  CHECK(after.bytes_in_use == before.bytes_in_use);
  CHECK(after.bytes_cached >= 4000000);
  CHECK(after.bytes_peak >= before.bytes_in_use + 4000000);
  CHECK(after.system_allocations == before.system_allocations + 1);
  { const Tensor x = empty({1000000}); }
  CHECK(memory_stats().system_allocations == after.system_allocations);
  release_cached_memory();
  CHECK(memory_stats().bytes_cached == 0);
}
