#include "vector_case.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "tandem/core/ops.h"

namespace tandem::vectors {
namespace {

struct Want {
  std::vector<double> data;
  bool has_shape = false;
  Shape shape = {};
};

Want read_want(const Json& value) {
  if (value.is_object()) return {numbers(value.at("data")), true, shape_of(value.at("shape"))};
  if (value.is_array()) return {numbers(value)};
  return {{number(value)}};
}

// How far got is beyond rtol |want| + atol: at most 0 is a pass. Non-finite values equal one another.
double excess(double got, double want, double rtol, double atol) {
  if (!std::isfinite(want) || !std::isfinite(got)) return std::isfinite(want) == std::isfinite(got) ? 0 : HUGE_VAL;
  return std::fabs(got - want) - (atol + rtol * std::fabs(want));
}

// The worst element beyond the tolerance [rtol, atol], as a line; "" if there is none.
std::string worst_of(const std::string& quantity, const std::vector<double>& got, const std::vector<double>& want,
                     const Json& tolerance) {
  const double rtol = number(tolerance.at(0)), atol = number(tolerance.at(1));
  size_t worst = 0, beyond = 0;
  for (size_t i = 0; i < want.size(); ++i) {
    const double e = excess(got[i], want[i], rtol, atol);
    beyond += e > 0;
    if (e > excess(got[worst], want[worst], rtol, atol)) worst = i;
  }
  if (beyond == 0) return "";
  return fmt::format(
      "{}[{}]: got {:.17g}, want {:.17g} (tolerance {} relative, {} absolute; {} of {} values are beyond)", quantity,
      worst, got[worst], want[worst], rtol, atol, beyond, want.size());
}

// What a file says to its readers: why, and what other engines do.
// What only a person reads: settings are numbers, lists and switches, or words that every case of its op has.
bool is_remark(const std::string& key, const Json& value) {
  if (value.is_string()) return true;
  for (const char* start : {"note", "comment", "why", "reason", "source", "issue", "layout", "crosscheck", "torch",
                            "keras3", "tensorflow", "tf", "flax", "jax", "mlx", "cudnn", "numpy"})
    if (key.rfind(start, 0) == 0) return true;
  return false;
}

void flatten_labels(const Json& value, std::vector<int32_t>& list) {
  if (!value.is_array()) return list.push_back(value.get<int32_t>());
  for (const Json& element : value) flatten_labels(element, list);
}

}  // namespace

void require_known(const std::string& where, const Json& object, std::initializer_list<const char*> known) {
  if (!object.is_object()) throw FormatError(fmt::format("{}: expected an object, got {}", where, object.dump()));
  for (const auto& [key, value] : object.items()) {
    if (std::find(known.begin(), known.end(), key) == known.end() && !is_remark(key, value))
      throw FormatError(fmt::format("{}: unknown key \"{}\"", where, key));
  }
}

double number(const Json& value) {
  if (value.is_number()) return value.get<double>();
  if (value == "nan") return std::numeric_limits<double>::quiet_NaN();
  if (value == "inf") return HUGE_VAL;
  if (value == "-inf") return -HUGE_VAL;
  throw FormatError(fmt::format("expected a number, got {}", value.dump()));
}

std::vector<double> numbers(const Json& list) {
  if (!list.is_array()) throw FormatError(fmt::format("expected a list of numbers, got {}", list.dump()));
  std::vector<double> values;
  for (const Json& value : list) values.push_back(number(value));
  return values;
}

Shape shape_of(const Json& list) { return Shape(list.get<std::vector<int64_t>>()); }

Case::Case(const Json& json, Device device) : json_(json), device_(device) {
  id_ = (*this)["id"].get<std::string>();
  op_ = (*this)["op"].get<std::string>();
  tags_ = (*this)["tags"].get<std::vector<std::string>>();
  if (has("dtype")) dtype();
}

bool Case::has_tag(const std::string& tag) const { return std::find(tags_.begin(), tags_.end(), tag) != tags_.end(); }

const Json& Case::operator[](const std::string& key) const {
  read_.insert(key);
  const auto found = json_.find(key);
  if (found == json_.end()) throw FormatError(fmt::format("the case has no \"{}\"", key));
  return *found;
}

bool Case::has(const std::string& key) const {
  read_.insert(key);
  return json_.contains(key) && !json_[key].is_null();
}

Json Case::part(std::initializer_list<const char*> keys) const {
  Json found = Json::object();
  for (const char* key : keys) {
    read_.insert(key);
    if (json_.contains(key)) found[key] = json_[key];
  }
  return found;
}

void Case::require_all_read() const {
  for (const auto& [key, value] : json_.items()) {
    if (!read_.count(key) && !is_remark(key, value))
      throw FormatError(fmt::format("unknown key \"{}\": this runner passed it over", key));
  }
}

Dtype Case::dtype() const {
  const std::string name = (*this)["dtype"].get<std::string>();
  if (name == "float32") return Dtype::float32;
  if (name == "float64") return Dtype::float64;
  throw FormatError(fmt::format("expected dtype float32 or float64, got \"{}\"", name));
}

Tensor Case::tensor(const Json& value) const {
  require_known("a tensor", value, {"shape", "data"});
  return Tensor::from(numbers(value.at("data")), shape_of(value.at("shape"))).to(dtype()).to(device_);
}

Tensor Case::tensor_or_none(const std::string& key) const { return has(key) ? tensor((*this)[key]) : Tensor(); }

Tensor Case::labels(const Json& value) const {
  std::vector<int32_t> list;
  flatten_labels(value.is_object() ? value.at("data") : value, list);
  return Tensor::from(list, {static_cast<int64_t>(list.size())}).to(device_);
}

void Case::compare(const std::string& quantity, const std::string& tolerance, const Json& want, const Tensor& got) {
  const Json exact = Json::array({0, 0}), none = Json::object();
  const Json &tol = has("tol") ? json_["tol"] : none, &best = has("tol_best") ? json_["tol_best"] : none;
  const Json& level = tol.contains(tolerance) ? tol[tolerance] : tol.contains("all") ? tol["all"] : exact;
  if (level.is_null() || want.is_null()) return;
  ++checks_;
  const Want expected = read_want(want);
  const std::vector<double> values = got.to(Dtype::float64).to_vector<double>();
  if (expected.has_shape && expected.shape != got.shape())
    return fail(fmt::format("{}: got shape {}, want {}", quantity, to_string(got.shape()), to_string(expected.shape)));
  if (values.size() != expected.data.size())
    return fail(fmt::format("{}: got {} values, want {}", quantity, values.size(), expected.data.size()));
  if (std::string line = worst_of(quantity, values, expected.data, level); !line.empty()) fail(line);
  if (!best.contains(tolerance) || best[tolerance].is_null()) return;
  if (std::string line = worst_of(quantity, values, expected.data, best[tolerance]); !line.empty())
    best_failures_.push_back(line);
}

void Case::compare_all(const std::string& where, const Json& expect, const Results& results,
                       const std::string& tolerance) {
  if (!expect.is_object()) throw FormatError(fmt::format("{}: expected an object, got {}", where, expect.dump()));
  for (const auto& [name, want] : expect.items()) {
    const auto found = results.find(name);
    if (found == results.end() || !found->second.defined())
      fail(fmt::format("{}{}: expected by the file, but this runner has no such result", where, name));
    else
      compare(where + name, tolerance.empty() ? name : tolerance, want, found->second);
  }
}

Tensor channels_last(const Tensor& x) { return permute(x, {0, 2, 3, 1}); }
Tensor channels_first(const Tensor& x) { return permute(x, {0, 3, 1, 2}); }

}  // namespace tandem::vectors
