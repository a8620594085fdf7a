// The op table: batch norm's outputs and gradients. What it does to running statistics: batch_norm_test.cpp.
#include "op_cases.h"

namespace tandem::test {
namespace {

using Kind = OpInput::Kind;

struct Setting {
  std::string what;
  Shape x;
  BatchNormOptions options = {};
  bool scale = true, shift = true, tracked = true;
  Shape large = {};
};

OpInputs operands(const Setting& s, const Shape& x) {
  const Shape channels{x[x.axis(s.options.channel_axis, "test")]};
  return {{x, -2, 3},
          {channels, 0.5, 2, s.scale ? Kind::differentiable : Kind::absent},
          {channels, -1, 1, s.shift ? Kind::differentiable : Kind::absent},
          {channels, -0.5, 0.5, s.tracked ? Kind::constant : Kind::absent},
          {channels, 0.5, 2, s.tracked ? Kind::constant : Kind::absent}};
}

// Training moves the statistics it is given: each call gets copies.
RunningStats copies(const Tensors& t) {
  if (!t[3].defined()) return {};
  return {t[3].clone(), t[4].clone(), zeros({}, {.dtype = Dtype::int64})};
}

OpCase batch_norm_case(const Setting& s) {
  const BatchNormOptions o = s.options;
  const bool batch_statistics = o.training || !s.tracked;
  OpCase row{.name = "batch_norm, " + s.what,
             .samples = {operands(s, s.x)},
             .op = [o](const Tensors& t) { return batch_norm(t[0], t[1], t[2], copies(t), o); },
             .reference =
                 [o, batch_statistics](const Arrays& a) {
                   const auto m = batch_statistics ? reference::moments(a[0], o.channel_axis)
                                                   : reference::Moments{a[3].data, a[4].data, 0};
                   return reference::normalize(a[0], m.mean, m.var, a[1], a[2], o.eps, o.channel_axis);
                 },
             .roundings = 64};
  if (s.large.rank() > 0) row.large = operands(s, s.large);
  return row;
}

}  // namespace

std::vector<OpCase> batch_norm_cases() {
  const BatchNormOptions keras{
      .eps = 1e-3, .momentum = Momentum::keras(0.99), .unbiased_running_var = false, .allow_one_value = true};
  const std::vector<Setting> settings = {
      {.what = "2-D", .x = {5, 3}, .large = {391, 130}},
      {.what = "3-D", .x = {3, 4, 2}, .large = {67, 31, 17}},
      {.what = "4-D", .x = {2, 3, 3, 2}, .large = {37, 14, 14, 32}},
      {.what = "5-D", .x = {2, 2, 3, 2, 2}, .large = {19, 5, 7, 6, 9}},
      {.what = "3-D, channels first", .x = {3, 2, 4}, .options = {.channel_axis = 1}, .large = {67, 17, 31}},
      {.what = "4-D, channels first", .x = {2, 3, 3, 2}, .options = {.channel_axis = 1}, .large = {37, 8, 14, 14}},
      {.what = "5-D, channels first", .x = {2, 2, 3, 2, 2}, .options = {.channel_axis = 1}, .large = {19, 9, 5, 7, 6}},
      {.what = "one image", .x = {1, 3, 3, 2}},
      {.what = "one pixel", .x = {5, 1, 1, 3}},
      {.what = "one channel", .x = {4, 3, 2, 1}},
      {.what = "one value a channel (Keras)", .x = {1, 4}, .options = keras},
      {.what = "Keras' options", .x = {5, 3}, .options = keras, .large = {391, 130}},
      {.what = "no scale", .x = {5, 3}, .scale = false},
      {.what = "no shift", .x = {5, 3}, .shift = false},
      {.what = "no scale, no shift", .x = {2, 3, 3, 2}, .scale = false, .shift = false, .large = {37, 14, 14, 32}},
      {.what = "no running statistics", .x = {5, 3}, .tracked = false},
      {.what = "eval, 2-D", .x = {5, 3}, .options = {.training = false}, .large = {391, 130}},
      {.what = "eval, 4-D", .x = {2, 3, 3, 2}, .options = {.training = false}, .large = {37, 14, 14, 32}},
      {.what = "eval, 4-D, channels first",
       .x = {2, 3, 3, 2},
       .options = {.channel_axis = 1, .training = false},
       .large = {37, 8, 14, 14}},
      {.what = "eval, one row", .x = {1, 4}, .options = {.training = false}},
      {.what = "eval, no scale, no shift", .x = {5, 3}, .options = {.training = false}, .scale = false, .shift = false},
      {.what = "eval, no running statistics", .x = {5, 3}, .options = {.training = false}, .tracked = false},
      {.what = "eps 0", .x = {6, 3}, .options = {.eps = 0}},
  };
  std::vector<OpCase> rows;
  for (const Setting& setting : settings) rows.push_back(batch_norm_case(setting));
  return rows;
}

}  // namespace tandem::test
