#include "statistics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numbers>

#include "tandem/core/error.h"

namespace tandem {

namespace {

std::vector<double> present_values(const Sample& values) {
  std::vector<double> result;
  for (const auto& value : values)
    if (value) result.push_back(*value);
  return result;
}

double or_worst(const std::optional<double>& value, Better better) {
  const double infinity = std::numeric_limits<double>::infinity();
  return value.value_or(better == Better::lower ? infinity : -infinity);
}

// P(-t <= T <= t) for whole degrees of freedom: Abramowitz and Stegun 26.7.3 (odd) and 26.7.4 (even).
double central_probability(double t, int degrees) {
  const double theta = std::atan(t / std::sqrt(degrees));
  const double sine = std::sin(theta), cosine = std::cos(theta);
  const bool odd = degrees % 2 == 1;
  double term = odd ? cosine : 1, sum = degrees == 1 ? 0 : term;
  for (int k = odd ? 3 : 2; k < degrees; k += 2) {
    term *= cosine * cosine * (k - 1) / k;
    sum += term;
  }
  return odd ? 2 / std::numbers::pi * (theta + sine * sum) : sine * sum;
}

}  // namespace

double mean(const std::vector<double>& values) {
  if (values.empty()) throw ValueError("mean: expected at least one value, got none");
  double sum = 0;
  for (double value : values) sum += value;
  return sum / double(values.size());
}

double sample_sd(const std::vector<double>& values) {
  if (values.size() < 2) throw ValueError("sample_sd: expected at least two values, got fewer");
  const double center = mean(values);
  double squares = 0;
  for (double value : values) squares += (value - center) * (value - center);
  return std::sqrt(squares / double(values.size() - 1));
}

double percentile(std::vector<double> values, double fraction) {
  if (values.empty()) throw ValueError("percentile: expected at least one value, got none");
  std::sort(values.begin(), values.end());
  const double rank = fraction * double(values.size() - 1);
  const size_t below = size_t(rank), above = std::min(below + 1, values.size() - 1);
  const double weight = rank - double(below);
  // An infinite neighbour of weight 0 must not make a NaN.
  return weight == 0 ? values[below] : values[below] * (1 - weight) + values[above] * weight;
}

double median(std::vector<double> values) { return percentile(std::move(values), 0.5); }

double student_t(double confidence, int degrees) {
  if (degrees < 1 || !(confidence > 0 && confidence < 1))
    throw ValueError("student_t: expected degrees >= 1 and a confidence between 0 and 1");
  double low = 0, high = 1;
  while (central_probability(high, degrees) < confidence) high *= 2;
  for (int i = 0; i < 200 && low < high; ++i) {
    const double middle = low + (high - low) / 2;
    if (middle == low || middle == high) break;
    (central_probability(middle, degrees) < confidence ? low : high) = middle;
  }
  return high;
}

Summary summarize(const Sample& values, Better better) {
  Summary summary;
  const std::vector<double> present = present_values(values);
  summary.runs = int(values.size());
  summary.present = int(present.size());
  if (values.empty()) return summary;
  if (present.size() == values.size()) {
    summary.mean = mean(present);
    if (present.size() >= 2) summary.sd = sample_sd(present);
  }
  std::vector<double> ranked;
  for (const auto& value : values) ranked.push_back(or_worst(value, better));
  if (const double middle = median(ranked); std::isfinite(middle)) summary.median = middle;
  return summary;
}

Paired compare_pairs(const Sample& first, const Sample& second, Better better, double resolution) {
  if (first.size() != second.size()) throw ValueError("compare_pairs: expected one value per seed in both arms");
  Paired paired;
  paired.pairs = int(first.size());
  for (size_t i = 0; i < first.size(); ++i) {
    const double a = or_worst(first[i], better), b = or_worst(second[i], better);
    const bool second_better = better == Better::lower ? b < a : b > a, both = first[i] && second[i];
    ++(a != b ? second_better ? paired.better : paired.worse : both ? paired.tied : paired.neither);
    paired.differences.push_back(both ? std::optional(b - a) : std::nullopt);
  }
  const std::vector<double> differences = present_values(paired.differences);
  if (differences.empty() || int(differences.size()) < paired.pairs) return paired;
  paired.mean = mean(differences);
  if (paired.pairs < 2) return paired;
  paired.sd = sample_sd(differences);
  if (*paired.sd <= resolution) return paired;
  const double half = student_t(0.95, paired.pairs - 1) * *paired.sd / std::sqrt(double(paired.pairs));
  paired.low = *paired.mean - half;
  paired.high = *paired.mean + half;
  return paired;
}

}  // namespace tandem
