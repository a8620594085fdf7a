// The statistics behind `tandem compare`: small samples of paired runs, where a run may lack a value.
//
// A value is missing (nullopt) when a run diverged or never reached its target. Such a run is never dropped:
// it counts as worse than every number, so means are given up and medians, wins and losses remain.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tandem {

using Sample = std::vector<std::optional<double>>;
enum class Better { lower, higher };

// Of the values that are there. An even count's median is the mean of the middle two. Throw ValueError if empty.
double mean(const std::vector<double>& values);
double sample_sd(const std::vector<double>& values);  // n - 1 in the denominator; needs two values
double median(std::vector<double> values);
double percentile(std::vector<double> values, double fraction);  // linear between ranks; fraction in [0, 1]

// Student's t distribution: the t with P(-t <= T <= t) = confidence, at `degrees` >= 1 degrees of freedom.
double student_t(double confidence, int degrees);

// One arm over its seeds.
struct Summary {
  int runs = 0, present = 0;
  std::optional<double> mean;    // when no value is missing
  std::optional<double> sd;      // likewise, from two runs on
  std::optional<double> median;  // missing values counted as worst; empty if it falls on one
};
Summary summarize(const Sample& values, Better better);

// Second arm minus first, seed by seed.
struct Paired {
  int pairs = 0;
  int better = 0, tied = 0, worse = 0;  // of the second arm; a missing value loses to any number
  int neither = 0;                      // pairs with both values missing
  std::vector<std::optional<double>> differences;
  std::optional<double> mean, sd;  // when no value is missing; sd from two pairs on
  // 95 % interval of the mean difference, from two pairs on. Values that are known to within `resolution` alone
  // support none while the differences vary by no more than that.
  std::optional<double> low, high;

  bool excludes_zero() const { return low && (*low > 0 || *high < 0); }
};
// Both samples hold one value per seed, in the same order.
Paired compare_pairs(const Sample& first, const Sample& second, Better better, double resolution = 0);

}  // namespace tandem
