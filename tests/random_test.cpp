// Random streams: pinned values, ranges, moments, and independence of one another.
#include "tandem/core/random.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("A stream is a function of seed, name and position", "[random]") {
  const Stream a(1, "init/dense1.weight"), again(1, "init/dense1.weight"), seed(2, "init/dense1.weight"),
      name(1, "init/dense2.weight");
  CHECK(a.key() == again.key());
  CHECK(a.bits(5) == again.bits(5));
  std::set<uint64_t> all;
  for (const Stream& s : {a, seed, name})
    for (uint64_t i = 0; i < 1000; ++i) all.insert(s.bits(i));
  CHECK(all.size() == 3000);
}

TEST_CASE("Neighbouring seeds and names give unrelated streams", "[random]") {
  // The correlation of 4096 uniform draws: standard deviation 1/64 if they are independent.
  const auto correlation = [](const Stream& a, const Stream& b) {
    double sum = 0;
    for (uint64_t i = 0; i < 4096; ++i) sum += (a.uniform(i) - 0.5) * (b.uniform(i) - 0.5);
    return sum / 4096 * 12;
  };
  for (uint64_t seed = 0; seed < 8; ++seed) {
    CHECK(std::fabs(correlation(Stream(seed, "shuffle/0"), Stream(seed + 1, "shuffle/0"))) < 5.0 / 64);
    CHECK(std::fabs(correlation(Stream(seed, "shuffle/0"), Stream(seed, "shuffle/1"))) < 5.0 / 64);
  }
}

TEST_CASE("uniform is at least 0 and below 1, with the right moments", "[random]") {
  const Stream s(3, "test");
  double mean = 0, square = 0, low = 1, high = 0;
  const int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double u = s.uniform(i);
    mean += u / n;
    square += u * u / n;
    low = std::min(low, u);
    high = std::max(high, u);
  }
  CHECK(low >= 0);
  CHECK(high < 1);
  CHECK(std::fabs(mean - 0.5) < 5 * std::sqrt(1.0 / 12 / n));
  CHECK(std::fabs(square - 1.0 / 3) < 5 * std::sqrt(4.0 / 45 / n));
}

TEST_CASE("normal has the right moments and tails", "[random]") {
  const Stream s(3, "test");
  double moment[5] = {};
  int beyond_two = 0;
  const int n = 100000;
  for (int i = 0; i < n; ++i) {
    const double z = s.normal(i);
    REQUIRE(std::isfinite(z));
    for (int k = 1; k <= 4; ++k) moment[k] += std::pow(z, k) / n;
    beyond_two += std::fabs(z) > 2;
  }
  CHECK(std::fabs(moment[1]) < 5 / std::sqrt(n));
  CHECK(std::fabs(moment[2] - 1) < 5 * std::sqrt(2.0 / n));
  CHECK(std::fabs(moment[3]) < 5 * std::sqrt(15.0 / n));
  CHECK(std::fabs(moment[4] - 3) < 5 * std::sqrt(96.0 / n));
  CHECK(std::fabs(beyond_two / static_cast<double>(n) - 0.0455) < 5 * std::sqrt(0.0455 / n));
}

TEST_CASE("below stays below, evenly", "[random]") {
  const Stream s(3, "test");
  int count[7] = {};
  for (uint64_t i = 0; i < 70000; ++i) {
    const uint64_t draw = s.below(i, 7);
    REQUIRE(draw < 7);
    ++count[draw];
  }
  for (int c : count) CHECK(std::abs(c - 10000) < 5 * 93);
  CHECK(s.below(0, 1) == 0);
}

TEST_CASE("permutation holds every row once, each in every place equally often", "[random]") {
  std::vector<int32_t> order = Stream(3, "shuffle/0").permutation(1000);
  CHECK_FALSE(std::is_sorted(order.begin(), order.end()));
  std::sort(order.begin(), order.end());
  for (int32_t i = 0; i < 1000; ++i) REQUIRE(order[i] == i);
  CHECK(Stream(3, "x").permutation(0).empty());
  CHECK(Stream(3, "x").permutation(1) == std::vector<int32_t>{0});

  int first[4] = {};
  for (uint64_t seed = 0; seed < 4000; ++seed) ++first[Stream(seed, "x").permutation(4)[0]];
  for (int c : first) CHECK(std::abs(c - 1000) < 5 * 28);
}

TEST_CASE("permutation refuses counts that int32 does not hold", "[random]") {
  const Stream stream(1, "rows");
  CHECK(stream.permutation(0).empty());
  CHECK(error_of([&] { stream.permutation(-1); }) == "permutation: expected n in [0, 2^31), got -1");
  CHECK_THROWS_AS(stream.permutation(int64_t{1} << 31), ValueError);
}

TEST_CASE("Filling a float32 tensor rounds the float64 draws", "[random]") {
  Tensor single = empty({100}), exact = empty({100}, {.dtype = Dtype::float64});
  fill_normal(single, 1, 2, Stream(1, "a"));
  fill_normal(exact, 1, 2, Stream(1, "a"));
  CHECK(bytes(single) == bytes(exact.to(Dtype::float32)));
  fill_uniform(exact, -2, 3, Stream(1, "a"));
  for (double v : exact.to_vector<double>()) CHECK((v >= -2 && v < 3));
  CHECK(exact.to_vector<double>()[7] == -2 + 5 * Stream(1, "a").uniform(7));
}

// These values may never change: models trained from a seed would no longer be the same.
TEST_CASE("Pinned draws", "[random]") {
  const Stream s(42, "init/dense1.weight");
  CHECK(s.key() == 0xdaf639c9601ab978);
  CHECK(s.bits(0) == 0xff9028e4e8f5384d);
  CHECK(s.normal(1) == Approx(1.1946845973552405).epsilon(1e-14));
  CHECK(s.permutation(8) == std::vector<int32_t>{6, 1, 7, 4, 5, 2, 3, 0});
}
