#include "tandem/layers/init.h"

#include <fmt/ranges.h>

#include <cmath>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/core/text.h"

namespace tandem {

namespace {

// How each kind is written, its name and how many numbers follow in parentheses; and, of those that depend on the fan,
// the variance times the fan, whether that is the mean of in and out or in alone, and the distribution.
struct Form {
  Init::Kind kind;
  const char* name;
  int numbers;
  double scale = 0;
  bool mean_fan = false, normal = false;
};
constexpr Form kForms[] = {  // in the order of Init::Kind
    {Init::Kind::zeros, "zeros", 0},
    {Init::Kind::ones, "ones", 0},
    {Init::Kind::constant, "constant", 1},
    {Init::Kind::normal, "normal", 2},
    {Init::Kind::uniform, "uniform", 2},
    {Init::Kind::he_normal, "he_normal", 0, 2, false, true},
    {Init::Kind::he_uniform, "he_uniform", 0, 2, false, false},
    {Init::Kind::glorot_normal, "glorot_normal", 0, 1, true, true},
    {Init::Kind::glorot_uniform, "glorot_uniform", 0, 1, true, false},
    {Init::Kind::lecun_normal, "lecun_normal", 0, 1, false, true},
};

const Form& form_of(const Init& init) { return kForms[static_cast<int>(init.kind)]; }

void check(const Init& init) {
  if (!std::isfinite(init.a) || !std::isfinite(init.b)) {
    throw ValueError(fmt::format("init: expected finite numbers, got {}", to_string(init)));
  }
  if (init.kind == Init::Kind::normal && init.b < 0) {
    throw ValueError(fmt::format("init: expected a standard deviation >= 0, got {} in {}", init.b, to_string(init)));
  }
  if (init.kind == Init::Kind::uniform && init.a > init.b) {
    throw ValueError(fmt::format("init: expected low <= high, got {}", to_string(init)));
  }
}

}  // namespace

void initialize(Tensor& x, const Init& init, int64_t fan_in, int64_t fan_out, const Stream& stream) {
  check(init);
  if (init.kind == Init::Kind::normal) return fill_normal(x, init.a, init.b, stream);
  if (init.kind == Init::Kind::uniform) return fill_uniform(x, init.a, init.b, stream);
  const Form& form = form_of(init);
  if (form.scale == 0) return x.fill(init.kind == Init::Kind::constant ? init.a : init.kind == Init::Kind::ones);
  const double in = static_cast<double>(fan_in), out = static_cast<double>(fan_out);
  const double fan = form.mean_fan ? (in + out) / 2 : in;
  if (!(fan > 0)) throw ValueError(fmt::format("init: expected a fan above 0, got {}", fan));
  const double bound = std::sqrt(3 * form.scale / fan);
  form.normal ? fill_normal(x, 0, std::sqrt(form.scale / fan), stream) : fill_uniform(x, -bound, bound, stream);
}

std::string to_string(const Init& init) {
  const Form& form = form_of(init);
  if (form.numbers == 0) return form.name;
  return form.numbers == 1 ? fmt::format("{}({})", form.name, init.a)
                           : fmt::format("{}({}, {})", form.name, init.a, init.b);
}

Init parse_init(const std::string& text) {
  const size_t open = text.find('(');
  const std::string name = text.substr(0, open);
  std::vector<std::string> names;
  for (const Form& s : kForms) {
    names.push_back(s.name);
    if (name != s.name) continue;
    Init init{s.kind};
    std::vector<std::string> numbers;
    if (open != std::string::npos && text.back() == ')') {
      numbers = split(text.substr(open + 1, text.size() - open - 2), ',');
    }
    bool valid = static_cast<int>(numbers.size()) == s.numbers && (s.numbers > 0 || open == std::string::npos);
    for (size_t i = 0; valid && i < numbers.size(); ++i) {
      const auto number = parse_double(numbers[i]);
      valid = number.has_value();
      (i == 0 ? init.a : init.b) = number.value_or(0);
    }
    if (!valid) {
      const char* form = s.numbers == 0 ? "" : s.numbers == 1 ? "(X)" : "(X, Y)";
      throw ValueError(fmt::format("init: expected \"{}{}\", got \"{}\"", s.name, form, text));
    }
    check(init);
    return init;
  }
  throw ValueError(
      fmt::format("init: \"{}\" is not one of {}{}", text, fmt::join(names, ", "), did_you_mean(name, names)));
}

}  // namespace tandem
