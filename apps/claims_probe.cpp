#include "claims_probe.h"

#include <fmt/format.h>

#include <algorithm>

#include "tandem/core/random.h"

namespace tandem {

BatchNormLayerOptions float64_options(BatchNormLayerOptions options) {
  options.dtype = Dtype::float64;
  return options;
}

Tensor normal(const Shape& shape, const std::string& name, double mean, double std) {
  Tensor x = empty(shape, {Dtype::float64});
  fill_normal(x, mean, std, Stream(1, name));
  return x;
}

Values values_of(const Tensor& x) { return x.to(Dtype::float64).to_vector<double>(); }

Values state_of(Module& layer, const std::string& name) {
  for (const auto& [own, tensor] : layer.state_dict())
    if (own == name) return values_of(tensor);
  return {};
}

std::vector<Values> whole_state(Module& layer) {
  std::vector<Values> all;
  for (const auto& [name, tensor] : layer.state_dict()) all.push_back(values_of(tensor));
  return all;
}

double largest_difference(const Values& a, const Values& b) {
  if (a.size() != b.size()) return INFINITY;
  double largest = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    const double difference = std::abs(a[i] - b[i]);
    largest = std::isnan(difference) ? INFINITY : std::max(largest, difference);
  }
  return largest;
}
double largest_difference(const Tensor& a, const Tensor& b) { return largest_difference(values_of(a), values_of(b)); }

Verdict all_or_none(int yes, int of) {
  return yes == of ? Verdict::holds : yes == 0 ? Verdict::refuted : Verdict::holds_with_nuance;
}

std::string within(double difference) {
  return difference == 0             ? "exactly"
         : std::isfinite(difference) ? fmt::format("to within {:.0e}", difference)
                                     : "not at all";
}
std::string yes_no(bool yes) { return yes ? "yes" : "no"; }

}  // namespace tandem
