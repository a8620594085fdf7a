#include "tandem/data/digits.h"

#include <algorithm>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"
#include "tandem/core/hash.h"
#include "tandem/core/threads.h"
#include "training.h"

namespace tandem::test {
namespace {

std::string checksum(const Tensor& x) {
  const std::vector<uint8_t> all = bytes(x);
  return sha256(all.data(), all.size());
}

}  // namespace

TEST_CASE("The built-in digits are images like MNIST's") {
  const Dataset data = make_digits(2000, 1);
  CHECK(data.name == "digits");
  CHECK(data.x.shape() == Shape{2000, 28, 28, 1});
  CHECK(data.x.dtype() == Dtype::uint8);
  CHECK(data.classes == 10);
  const std::vector<int32_t> labels = data.y.to_vector<int32_t>();
  for (int32_t digit = 0; digit < 10; ++digit) {
    const auto count = std::count(labels.begin(), labels.end(), digit);
    CHECK(count > 150);
    CHECK(count < 250);
  }
  const uint8_t* pixels = data.x.data<uint8_t>();
  for (int64_t i = 0; i < 2000; ++i) {
    const uint8_t* image = pixels + 784 * i;
    CHECK(std::count(image, image + 784, 0) > 400);       // most of it is paper,
    CHECK(std::count(image, image + 784, 0) < 784 - 20);  // some is ink,
    CHECK(*std::max_element(image, image + 784) > 120);   // which can be seen
  }
  CHECK(error_of([] { make_digits(0, 1); }) == "make_digits: expected 1 to 2147483647 images, got 0");
}

TEST_CASE("The built-in digits depend on seed and index alone, not on threads") {
  const Dataset some = make_digits(300, 1), more = make_digits(500, 1), other = make_digits(300, 2);
  CHECK(bytes(some.x) == [&] {
    std::vector<uint8_t> all = bytes(more.x);
    all.resize(300 * 784);
    return all;
  }());
  CHECK(bytes(some.x) != bytes(other.x));
  const int before = threads();
  set_threads(1);
  CHECK(bytes(make_digits(300, 1).x) == bytes(some.x));
  set_threads(5);
  CHECK(bytes(make_digits(300, 1).x) == bytes(some.x));
  CHECK(make_digits(1, 1).size() == 1);
  set_threads(before);
  // These sums are part of the format of every experiment: they must never change, on any machine.
  CHECK(checksum(some.x) == "9484d26a31b3d139c76ce49dabd995068e36befd0765a0567da8134cfccddd52");
  CHECK(checksum(some.y) == "20e70eb9f0cfa0a92fbb4356e0dff20a6748eb4a196266018a29dde7efaddab5");
}

TEST_CASE("The built-in digits are drawn even where no thread can be started") {
  const int before = threads();
  const std::vector<uint8_t> expected = bytes(make_digits(600, 1).x);
  set_threads(64);  // more than the pool ever had
  {
    const NoThreads none;
    CHECK(bytes(make_digits(600, 1).x) == expected);
  }
  set_threads(before);
}

// Trains, so it runs with the tests on MNIST.
TEST_CASE("The built-in digits are too hard for a linear model, and not for w2 with batch norm", "[mnist]") {
  const Dataset data = make_digits(55000, 1), test = make_digits(10000, 2);
  const double linear = accuracy(*train(data, {.layers = "dense:10", .epochs = 3}).model, test);
  CHECK(linear > 0.80);
  CHECK(linear < 0.95);
  CHECK(accuracy(*train(data, {.epochs = 3}).model, test) > 0.97);
}

}  // namespace tandem::test
