#include "run_difference.h"

#include <algorithm>
#include <cmath>

namespace tandem {

namespace {

// 0 for the same number, NaN included; infinity where only one is a number.
double distance(double a, double b) {
  if (a == b || (std::isnan(a) && std::isnan(b))) return 0;
  const double difference = std::abs(a - b);
  return std::isfinite(difference) ? difference : INFINITY;
}

double record_difference(const ArmRun& a, const ArmRun& b) {
  if (a.diverged != b.diverged || a.steps != b.steps || a.curve.size() != b.curve.size()) return INFINITY;
  double largest = 0;
  for (size_t i = 0; i < a.curve.size(); ++i)
    for (double CurvePoint::*field :
         {&CurvePoint::train_loss, &CurvePoint::validation_loss, &CurvePoint::validation_accuracy})
      largest = std::max(largest, distance(a.curve[i].*field, b.curve[i].*field));
  for (auto field : {&ArmRun::train_accuracy, &ArmRun::validation_accuracy, &ArmRun::test_accuracy})
    largest = std::max(largest, distance((a.*field).value_or(NAN), (b.*field).value_or(NAN)));
  return largest;
}

// Over every parameter and buffer; the models have the same.
double weight_difference(Module& a, Module& b) {
  const StateDict first = a.state_dict(), second = b.state_dict();
  if (first.size() != second.size()) return INFINITY;
  double largest = 0;
  for (size_t i = 0; i < first.size(); ++i) {
    const Tensor x = first[i].second.to(Dtype::float64).to(Device{}),
                 y = second[i].second.to(Dtype::float64).to(Device{});
    for (int64_t j = 0; j < x.numel(); ++j)
      largest = std::max(largest, distance(x.data<double>()[j], y.data<double>()[j]));
  }
  return largest;
}

}  // namespace

double run_difference(const ArmRun& a, Module& model_a, const ArmRun& b, Module& model_b) {
  return std::max(record_difference(a, b), weight_difference(model_a, model_b));
}

}  // namespace tandem
