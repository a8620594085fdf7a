// The op table: softmax, cross-entropy, dropout.
#include "helpers.h"
#include "op_cases.h"
#include "tandem/core/scalar_math.h"

namespace tandem::test {
namespace {

using Kind = OpInput::Kind;

OpCase softmax_case(const std::string& what, bool log, const Shape& x, int axis, OpInputs large = {}) {
  return {.name = (log ? "log_softmax, " : "softmax, ") + what,
          .samples = {{{x, -3, 3}}},
          .large = std::move(large),
          .op = [log, axis](const Tensors& t) { return log ? log_softmax(t[0], axis) : softmax(t[0], axis); },
          .reference = [log, axis](const Arrays& a) { return reference::softmax(a[0], axis, log); },
          .roundings = 32};
}

OpCase cross_entropy_case(const std::string& what, const CrossEntropyOptions& options) {
  auto operands = [](int64_t n, int64_t classes) -> OpInputs {
    return {{{n, classes}, -4, 4}, {{n}, 0, static_cast<double>(classes), Kind::index}};
  };
  return {.name = "cross_entropy, " + what,
          .samples = {operands(4, 5), operands(1, 10), operands(3, 1), operands(6, 2)},
          .large = operands(391, 130),
          .op = [options](const Tensors& t) { return cross_entropy(t[0], t[1], options); },
          .reference = [options](const Arrays& a) { return reference::cross_entropy(a[0], a[1], options); },
          .roundings = 64};
}

// The documented mask: element i is dropped where word i % 4 of Philox(key, counter i / 4, call) is below p 2^32.
OpCase dropout_case(const std::string& what, double p) {
  auto call = [] { return full({}, 3, {.dtype = Dtype::int64, .device = test_device()}); };
  return {.name = "dropout, " + what,
          .samples = {{{{4, 5}}}, {{{0, 2}}}, {{{}}}},
          .large = {{{130, 517}}},
          .op = [=](const Tensors& t) { return dropout(t[0], p, 77, call()); },
          .reference =
              [=](const Arrays& a) {
                reference::Array y = a[0];
                for (size_t i = 0; i < y.data.size(); ++i) {
                  const bool dropped = philox4x32(77, i / 4, 3).v[i % 4] < p * 0x1p32;
                  y.data[i] = dropped ? 0 : y.data[i] / (1 - p);
                }
                return y;
              }};
}

}  // namespace

std::vector<OpCase> loss_cases() {
  std::vector<OpCase> rows;
  for (bool log : {false, true}) {
    rows.push_back(softmax_case("rows", log, {3, 5}, -1, {{{391, 130}, -3, 3}}));
    rows.push_back(softmax_case("columns", log, {3, 5}, 0, {{{391, 37}, -3, 3}}));
    rows.push_back(softmax_case("the middle axis", log, {2, 4, 3}, 1, {{{31, 17, 33}, -3, 3}}));
    rows.push_back(softmax_case("one class", log, {4, 1}, 1));
    rows.push_back(softmax_case("a vector", log, {5}, 0));
    rows.push_back(softmax_case("no rows", log, {0, 5}, 1));
  }
  rows.push_back(cross_entropy_case("mean", {}));
  rows.push_back(cross_entropy_case("sum", {.reduction = Reduction::sum}));
  rows.push_back(cross_entropy_case("each row", {.reduction = Reduction::none}));
  rows.push_back(cross_entropy_case("smoothed", {.label_smoothing = 0.1}));
  rows.push_back(cross_entropy_case("smoothed, each row", {.label_smoothing = 0.3, .reduction = Reduction::none}));
  rows.push_back(cross_entropy_case("smoothed to the uniform", {.label_smoothing = 1, .reduction = Reduction::sum}));
  rows.push_back(dropout_case("half", 0.5));
  rows.push_back(dropout_case("a tenth", 0.1));
  rows.push_back(dropout_case("nothing", 0));
  return rows;
}

}  // namespace tandem::test
