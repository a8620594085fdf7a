// Initial values: their distributions, and that they depend on the parameter's name and the seed alone.
#include "tandem/layers/init.h"

#include <cmath>
#include <map>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"
#include "tandem/layers/build.h"

using namespace tandem;
using namespace tandem::test;

namespace {

struct Moments {
  double mean = 0, std = 0, low = 0, high = 0;
};

// Of 100,000 values with fan_in 50 and fan_out 200.
Moments moments_of(const Init& init) {
  Tensor x = empty({200, 500}, {Dtype::float64});
  initialize(x, init, 50, 200, Stream(7, "init/x"));
  const std::vector<double> v = values(x);
  Moments m;
  m.low = *std::min_element(v.begin(), v.end());
  m.high = *std::max_element(v.begin(), v.end());
  for (const double value : v) m.mean += value / static_cast<double>(v.size());
  for (const double value : v) m.std += (value - m.mean) * (value - m.mean) / static_cast<double>(v.size());
  m.std = std::sqrt(m.std);
  return m;
}

using Values = std::map<std::string, std::vector<uint8_t>>;
Values all_values(Module& model) {
  Values result;
  for (const auto& [name, tensor] : model.state_dict()) result[name] = bytes(tensor);
  return result;
}

}  // namespace

TEST_CASE("Normal initialisers have the deviation that their paper gives") {
  const std::pair<Init, double> expected[] = {{Init::he_normal(), std::sqrt(2.0 / 50)},
                                              {Init::glorot_normal(), std::sqrt(2.0 / 250)},
                                              {Init::lecun_normal(), std::sqrt(1.0 / 50)},
                                              {Init::normal(0, 0.1), 0.1}};
  for (const auto& [init, std] : expected) {
    INFO(to_string(init));
    const Moments m = moments_of(init);
    // Standard errors over 100,000 values: std / 316 of the mean, std / 447 of the deviation; 4 of them.
    CHECK(std::fabs(m.mean) < 4 * std / 316);
    CHECK(std::fabs(m.std - std) < 4 * std / 447);
    CHECK(m.high > 3.5 * std);  // not truncated
  }
  CHECK(std::fabs(moments_of(Init::normal(3, 0.1)).mean - 3) < 4 * 0.1 / 316);
}

TEST_CASE("Uniform initialisers fill the interval that their paper gives") {
  const std::pair<Init, double> expected[] = {{Init::he_uniform(), std::sqrt(6.0 / 50)},
                                              {Init::glorot_uniform(), std::sqrt(6.0 / 250)},
                                              {Init::uniform(-0.2, 0.2), 0.2}};
  for (const auto& [init, bound] : expected) {
    INFO(to_string(init));
    const Moments m = moments_of(init);
    CHECK(m.low >= -bound);
    CHECK(m.high < bound);
    CHECK(m.low < -0.999 * bound);
    CHECK(m.high > 0.999 * bound);
    CHECK(std::fabs(m.std - bound / std::sqrt(3)) < 0.01 * bound);
  }
}

TEST_CASE("Constant initialisers fill with one value") {
  for (const auto& [init, value] : {std::pair(Init::zeros(), 0.0), {Init::ones(), 1.0}, {Init::constant(-2.5), -2.5}}) {
    const Moments m = moments_of(init);
    CHECK(m.low == value);
    CHECK(m.high == value);
  }
}

TEST_CASE("A float32 parameter starts as its float64 twin, rounded") {
  Tensor narrow = empty({100}), wide = empty({100}, {Dtype::float64});
  initialize(narrow, Init::he_normal(), 5, 5, Stream(1, "init/w"));
  initialize(wide, Init::he_normal(), 5, 5, Stream(1, "init/w"));
  CHECK(bytes(narrow) == bytes(wide.to(Dtype::float32)));
}

TEST_CASE("Initialisers are written and parsed back exactly") {
  const char* texts[] = {"zeros",     "ones",       "constant(0.5)", "normal(0, 0.1)", "uniform(-1, 0.25)",
                         "he_normal", "he_uniform", "glorot_normal", "glorot_uniform", "lecun_normal"};
  for (const char* text : texts) CHECK(to_string(parse_init(text)) == text);
  CHECK(to_string(parse_init("normal(0,1e-1)")) == "normal(0, 0.1)");
}

TEST_CASE("Initialisers that make no sense are refused with their text") {
  const std::pair<const char*, const char*> refused[] = {
      {"he_norma",
       "init: \"he_norma\" is not one of zeros, ones, constant, normal, uniform, he_normal, he_uniform, glorot_normal, "
       "glorot_uniform, lecun_normal (did you mean \"he_normal\"?)"},
      {"normal", "init: expected \"normal(X, Y)\", got \"normal\""},
      {"normal(0)", "init: expected \"normal(X, Y)\", got \"normal(0)\""},
      {"normal(0, x)", "init: expected \"normal(X, Y)\", got \"normal(0, x)\""},
      {"normal(0, 0.1", "init: expected \"normal(X, Y)\", got \"normal(0, 0.1\""},
      {"zeros()", "init: expected \"zeros\", got \"zeros()\""},
      {"normal(0, -0.1)", "init: expected a standard deviation >= 0, got -0.1 in normal(0, -0.1)"},
      {"uniform(1, 0)", "init: expected low <= high, got uniform(1, 0)"},
      {"constant(inf)", "init: expected finite numbers, got constant(inf)"},
  };
  for (const auto& [text, error] : refused) {
    const char* given = text;
    CHECK(error_of([&] { parse_init(given); }) == error);
  }
  Tensor x = ones({2});
  CHECK(error_of([&] { initialize(x, Init::he_normal(), 0, 3, Stream(1, "x")); }) ==
        "init: expected a fan above 0, got 0");
}

TEST_CASE("Batch norm inserted anywhere leaves every shared parameter as it was, byte for byte") {
  for (const char* name : {"mlp", "w1", "w2", "w3", "lenet"}) {
    INFO(name);
    const ModelText with = model_text(name, true), without = model_text(name, false);
    const auto bn = build(with.layers, {28, 28, 1}, {.seed = 3, .init = with.init});
    const auto plain = build(without.layers, {28, 28, 1}, {.seed = 3, .init = without.init});
    const Values bn_values = all_values(*bn), plain_values = all_values(*plain);
    size_t shared = 0;
    for (const auto& [parameter, value] : plain_values) {
      if (!bn_values.count(parameter)) continue;
      INFO(parameter);
      CHECK(bn_values.at(parameter) == value);
      ++shared;
    }
    // All weights and the last layer's bias; the biases before a bn exist in the plain network alone.
    CHECK(shared == plain_values.size() / 2 + 1);
    for (const auto& [parameter, value] : plain_values) {
      if (parameter.find(".bias") == std::string::npos) CHECK(bn_values.count(parameter) == 1);
    }
  }
}

TEST_CASE("Batch norm in every single place, and other layers, move no other parameter") {
  const std::vector<std::string> layers{"conv:4:k=3", "relu",    "conv:4:k=3", "relu",
                                        "flatten",    "dense:8", "relu",       "dense:10"};
  const auto joined = [&](size_t place, const std::string& inserted) {
    std::string text;
    for (size_t i = 0; i < layers.size(); ++i)
      text += (i > 0 ? "," : "") + layers[i] + (i == place ? "," + inserted : "");
    return text;
  };
  const auto base = build(joined(99, ""), {8, 8, 1}, {.seed = 5});
  const Values expected = all_values(*base);
  for (const char* inserted : {"bn:axis=-1", "dropout:0.5", "tanh"}) {
    for (size_t place = 0; place < layers.size(); ++place) {
      const auto model = build(joined(place, inserted), {8, 8, 1}, {.seed = 5});
      INFO(model->text());
      for (const auto& [parameter, value] : all_values(*model)) {
        if (expected.count(parameter)) CHECK(value == expected.at(parameter));
      }
    }
  }
}

TEST_CASE("Another seed or another name draws other values, and the same ones the same") {
  const auto weights = [](uint64_t seed, const std::string& text) {
    const auto model = build(text, {4}, {.seed = seed});
    return all_values(*model);
  };
  CHECK(weights(1, "dense:4,dense:4") == weights(1, "dense:4,dense:4"));
  CHECK(weights(1, "dense:4")["dense1.weight"] != weights(2, "dense:4")["dense1.weight"]);
  Values both = weights(1, "dense:4,dense:4");
  CHECK(both["dense1.weight"] != both["dense2.weight"]);
}
