// The statistics behind compare: against published tables and worked examples.
#include "statistics.h"

#include <cmath>

#include "../catch.hpp"
#include "../helpers.h"

using namespace tandem;
using tandem::test::error_of;

namespace {
constexpr std::nullopt_t missing = std::nullopt;
Approx near(double value) { return Approx(value).epsilon(1e-6); }
}  // namespace

TEST_CASE("Mean, standard deviation, median and percentiles") {
  CHECK(mean({1, 2, 3, 6}) == 3);
  CHECK(sample_sd({2, 4, 4, 4, 5, 5, 7, 9}) == near(std::sqrt(32.0 / 7)));
  CHECK(sample_sd({3, 3, 3}) == 0);
  CHECK(median({5, 1, 3}) == 3);
  CHECK(median({4, 1, 3, 2}) == 2.5);
  CHECK(percentile({10, 20, 30, 40, 50}, 0.1) == near(14));
  CHECK(percentile({7}, 0.9) == 7);
  CHECK(percentile({1, 2, INFINITY}, 0.5) == 2);
  CHECK(error_of([] { mean({}); }) == "mean: expected at least one value, got none");
  CHECK(error_of([] { sample_sd({1}); }) == "sample_sd: expected at least two values, got fewer");
  CHECK(error_of([] { median({}); }) == "percentile: expected at least one value, got none");
}

TEST_CASE("Student's t agrees with the published table") {
  struct Row {
    double confidence;
    int degrees;
    double t;
  };
  const Row table[] = {{0.95, 1, 12.7062047},   {0.95, 2, 4.30265273}, {0.95, 3, 3.18244631},  {0.95, 4, 2.77644511},
                       {0.95, 5, 2.57058184},   {0.95, 9, 2.26215716}, {0.95, 19, 2.09302405}, {0.95, 29, 2.04522964},
                       {0.95, 100, 1.98397152}, {0.99, 4, 4.60409487}, {0.99, 7, 3.49948330},  {0.5, 1, 1.0}};
  for (const Row& row : table) {
    CAPTURE(row.confidence, row.degrees);
    CHECK(student_t(row.confidence, row.degrees) == near(row.t));
  }
  CHECK_FALSE(error_of([] { student_t(0.95, 0); }).empty());
  CHECK_FALSE(error_of([] { student_t(1, 3); }).empty());
}

TEST_CASE("A paired difference has the interval of its mean") {
  const Sample first = {10.0, 12.0, 9.0, 11.0, 13.0}, second = {8.0, 11.0, 9.0, 8.0, 9.0};
  const Paired paired = compare_pairs(first, second, Better::lower);  // differences -2 -1 0 -3 -4
  CHECK(paired.pairs == 5);
  CHECK(*paired.mean == near(-2));
  CHECK(*paired.sd == near(std::sqrt(2.5)));
  CHECK(*paired.low == near(-2 - 2.77644511 * std::sqrt(0.5)));
  CHECK(*paired.high == near(-2 + 2.77644511 * std::sqrt(0.5)));
  CHECK(paired.excludes_zero());
  CHECK(paired.better == 4);
  CHECK(paired.tied == 1);
  CHECK(paired.worse == 0);
  const Paired reversed = compare_pairs(first, second, Better::higher);
  CHECK(reversed.better == 0);
  CHECK(reversed.worse == 4);
  CHECK_FALSE(compare_pairs({1.0, 2.0}, {2.0, 1.0}, Better::lower).excludes_zero());
}

TEST_CASE("One pair has a difference but no spread") {
  const Paired paired = compare_pairs({3.0}, {1.0}, Better::lower);
  CHECK(*paired.mean == -2);
  CHECK_FALSE(paired.sd);
  CHECK_FALSE(paired.low);
  CHECK_FALSE(paired.excludes_zero());
  const Summary summary = summarize({3.0}, Better::lower);
  CHECK(*summary.mean == 3);
  CHECK_FALSE(summary.sd);
}

TEST_CASE("A run without a value counts as worst and is never dropped") {
  const Sample some = {100.0, missing, 300.0, missing, 200.0};
  const Summary summary = summarize(some, Better::lower);
  CHECK(summary.runs == 5);
  CHECK(summary.present == 3);
  CHECK_FALSE(summary.mean);
  CHECK(*summary.median == 300);  // of 100 200 300 and two that never got there
  CHECK_FALSE(summarize({100.0, missing, missing}, Better::lower).median);
  CHECK(*summarize({0.9, missing, 0.8}, Better::higher).median == 0.8);
  CHECK_FALSE(summarize({100.0, missing}, Better::lower).median);  // halfway to never is never

  const Sample all = {400.0, 500.0, 200.0, missing, 200.0};
  const Paired paired = compare_pairs(some, all, Better::lower);
  CHECK_FALSE(paired.mean);
  CHECK_FALSE(paired.low);
  CHECK(paired.better == 2);  // 500 against never, 200 against 300
  CHECK(paired.tied == 1);    // 200 twice
  CHECK(paired.worse == 1);
  CHECK(paired.neither == 1);  // never twice
  CHECK(*paired.differences[0] == 300);
  CHECK_FALSE(paired.differences[1]);
  CHECK_FALSE(error_of([&] { compare_pairs(some, {1.0}, Better::lower); }).empty());
}
