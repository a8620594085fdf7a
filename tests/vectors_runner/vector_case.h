// One case of a vector file: its inputs as tensors, and the comparison of results with what it expects.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "tandem/core/tensor.h"

namespace tandem::vectors {

using Json = nlohmann::json;
using Results = std::map<std::string, Tensor>;

// The case breaks the format.
struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// Tandem has no such feature; legitimate only for cases tagged optional.
struct Unsupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Case {
 public:
  // Throws FormatError unless id, op and tags are there.
  Case(const Json& json, Device device);

  const std::string& id() const { return id_; }
  const std::string& op() const { return op_; }
  const std::vector<std::string>& tags() const { return tags_; }
  bool has_tag(const std::string& tag) const;

  // ---- inputs ----
  const Json& operator[](const std::string& key) const;      // throws FormatError if missing
  bool has(const std::string& key) const;                    // there, and not null
  Json part(std::initializer_list<const char*> keys) const;  // an object of those that are there, null or not
  Dtype dtype() const;
  // A tensor {"shape", "data"} of the case's dtype: what a float32 case holds is rounded to float32 first.
  Tensor tensor(const Json& value) const;
  Tensor tensor_or_none(const std::string& key) const;  // empty if null or missing
  // int32 [N]: a list, nested or not, or a tensor {"shape", "data"}.
  Tensor labels(const Json& value) const;

  // ---- comparison ----
  // `got` with `want` (a tensor, a list or a number), within tol[tolerance]; converted to float64.
  void compare(const std::string& quantity, const std::string& tolerance, const Json& want, const Tensor& got);
  // Everything that `expect` names, with the result of that name; one that `results` lacks is a failure. Under
  // the tolerance of the same name, or under `tolerance` if it is given.
  void compare_all(const std::string& where, const Json& expect, const Results& results,
                   const std::string& tolerance = "");
  void fail(const std::string& sentence) { failures_.push_back(sentence); }
  void count_check() { ++checks_; }  // of a check that is not a comparison

  // Throws FormatError for a key that nobody asked for: an option that was passed over.
  void require_all_read() const;

  Device device() const { return device_; }
  int checks() const { return checks_; }
  const std::vector<std::string>& failures() const { return failures_; }
  // The level of `tol_best`: is there one, and was it missed anywhere?
  bool has_best() const { return has("tol_best"); }
  const std::vector<std::string>& best_failures() const { return best_failures_; }

 private:
  Json json_;
  Device device_;
  std::string id_, op_;
  std::vector<std::string> tags_, failures_, best_failures_;
  mutable std::set<std::string> read_;
  int checks_ = 0;
};

// Throws FormatError for a key that is neither known nor a remark ("note", what other engines print).
void require_known(const std::string& where, const Json& object, std::initializer_list<const char*> known);

double number(const Json& value);  // also "nan", "inf", "-inf"
Shape shape_of(const Json& list);
std::vector<double> numbers(const Json& list);

// Images between the file's [N, C, H, W] and Tandem's [N, H, W, C]; weights [O, I, kh, kw] alike. Differentiable.
Tensor channels_last(const Tensor& x);
Tensor channels_first(const Tensor& x);

// The checker of an op. Throws FormatError for an op that this runner does not know.
using Check = void (*)(Case&);
Check checker_of(const std::string& op);
void check_linear(Case&);
void check_conv2d(Case&);
void check_relu(Case&);
void check_cross_entropy(Case&);
void check_max_pool2d(Case&);
void check_avg_pool2d(Case&);
void check_batch_norm(Case&);
void check_batch_norm_generated(Case&);
void check_batch_norm_contract(Case&);
void check_fold_bn(Case&);
void check_recalibrate(Case&);
void check_merge_moments(Case&);
void check_batch_norm_shared(Case&);
void check_batch_norm_properties(Case&);
void check_momentum_conversion(Case&);
void check_optimizer(Case&);
void check_train_network(Case&);

}  // namespace tandem::vectors
