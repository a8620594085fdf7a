#include "tandem/layers/init.h"

#include <fmt/ranges.h>

#include <cmath>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/core/text.h"

namespace tandem {

namespace {

// How each kind is written: its name and how many numbers follow in parentheses.
struct Spelling {
  Init::Kind kind;
  const char* name;
  int numbers;
};
constexpr Spelling kSpellings[] = {
    {Init::Kind::zeros, "zeros", 0},
    {Init::Kind::ones, "ones", 0},
    {Init::Kind::constant, "constant", 1},
    {Init::Kind::normal, "normal", 2},
    {Init::Kind::uniform, "uniform", 2},
    {Init::Kind::he_normal, "he_normal", 0},
    {Init::Kind::he_uniform, "he_uniform", 0},
    {Init::Kind::glorot_normal, "glorot_normal", 0},
    {Init::Kind::glorot_uniform, "glorot_uniform", 0},
    {Init::Kind::lecun_normal, "lecun_normal", 0},
};

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

// var = scale / fan, the fan being in, or the mean of in and out.
void fill_scaled(Tensor& x, double scale, double fan, bool normal, const Stream& stream) {
  if (!(fan > 0)) throw ValueError(fmt::format("init: expected a fan above 0, got {}", fan));
  if (normal) {
    fill_normal(x, 0, std::sqrt(scale / fan), stream);
  } else {
    const double bound = std::sqrt(3 * scale / fan);
    fill_uniform(x, -bound, bound, stream);
  }
}

}  // namespace

void initialize(Tensor& x, const Init& init, int64_t fan_in, int64_t fan_out, const Stream& stream) {
  check(init);
  const double in = static_cast<double>(fan_in), mean = (in + static_cast<double>(fan_out)) / 2;
  switch (init.kind) {
    case Init::Kind::zeros:
      return x.fill(0);
    case Init::Kind::ones:
      return x.fill(1);
    case Init::Kind::constant:
      return x.fill(init.a);
    case Init::Kind::normal:
      return fill_normal(x, init.a, init.b, stream);
    case Init::Kind::uniform:
      return fill_uniform(x, init.a, init.b, stream);
    case Init::Kind::he_normal:
      return fill_scaled(x, 2, in, true, stream);
    case Init::Kind::he_uniform:
      return fill_scaled(x, 2, in, false, stream);
    case Init::Kind::glorot_normal:
      return fill_scaled(x, 1, mean, true, stream);
    case Init::Kind::glorot_uniform:
      return fill_scaled(x, 1, mean, false, stream);
    case Init::Kind::lecun_normal:
      return fill_scaled(x, 1, in, true, stream);
  }
}

std::string to_string(const Init& init) {
  for (const Spelling& s : kSpellings) {
    if (s.kind != init.kind) continue;
    if (s.numbers == 0) return s.name;
    return s.numbers == 1 ? fmt::format("{}({})", s.name, init.a) : fmt::format("{}({}, {})", s.name, init.a, init.b);
  }
  return "?";
}

Init parse_init(const std::string& text) {
  const size_t open = text.find('(');
  const std::string name = text.substr(0, open);
  std::vector<std::string> names;
  for (const Spelling& s : kSpellings) {
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
