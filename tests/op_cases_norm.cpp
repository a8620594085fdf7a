// The op table: outputs and gradients of batch norm, layer norm and group norm. What batch norm does to running
// statistics: batch_norm_test.cpp.
#include <cmath>

#include "helpers.h"
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
  return {t[3].clone(), t[4].clone(), zeros({}, {.dtype = Dtype::int64, .device = test_device()}), {}};
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

// Two thirds of the positions count, by their number.
bool counts(int64_t position) { return position % 3 != 1; }

// Batch norm over the positions of a mask: y everywhere, statistics where the mask says so.
OpCase masked_case(const std::string& what, const Shape& x, int axis, const Shape& large) {
  const auto mask_for = [axis](const Shape& shape) {
    const Shape positions = shape.without(shape.axis(axis, "test"));
    std::vector<uint8_t> mask;
    for (int64_t i = 0; i < positions.numel(); ++i) mask.push_back(counts(i));
    return Tensor::from(mask, positions, test_device());
  };
  const auto reference = [axis](const Arrays& a) {
    const int c_axis = a[0].shape.axis(axis, "test");
    const size_t channels = static_cast<size_t>(a[0].shape[c_axis]);
    std::vector<double> n(channels), mean(channels), var(channels);
    const auto for_marked = [&](const std::function<void(size_t, double)>& f) {
      reference::for_each_index(a[0].shape, [&](const reference::Index& index) {
        int64_t position = 0;
        for (int i = 0; i < a[0].shape.rank(); ++i)
          if (i != c_axis) position = position * a[0].shape[i] + index[static_cast<size_t>(i)];
        if (counts(position)) f(static_cast<size_t>(index[static_cast<size_t>(c_axis)]), reference::at(a[0], index));
      });
    };
    for_marked([&](size_t c, double v) { mean[c] += v, n[c] += 1; });
    for (size_t c = 0; c < channels; ++c) mean[c] /= n[c];
    for_marked([&](size_t c, double v) { var[c] += (v - mean[c]) * (v - mean[c]) / n[c]; });
    return reference::normalize(a[0], mean, var, a[1], a[2], 1e-5, axis);
  };
  const Setting small{.what = what, .x = x, .options = {.channel_axis = axis}, .tracked = false};
  OpCase row{.name = "batch_norm, " + what,
             .samples = {operands(small, x)},
             .op =
                 [=](const Tensors& t) {
                   return batch_norm(t[0], t[1], t[2], {}, {.channel_axis = axis}, mask_for(t[0].shape()));
                 },
             .reference = reference,
             .roundings = 64};
  row.large = operands(small, large);
  return row;
}

// Each of `groups` runs of values of x by itself, value i of a run with gamma and beta of `channel(i)`.
reference::Array normalize_groups(const Arrays& a, int64_t groups, const std::function<int64_t(int64_t)>& group_of,
                                  const std::function<int64_t(int64_t)>& channel) {
  const size_t n = static_cast<size_t>(groups);
  std::vector<double> count(n), mean(n), var(n);
  const auto& x = a[0].data;
  const auto group = [&](size_t i) { return static_cast<size_t>(group_of(static_cast<int64_t>(i))); };
  for (size_t i = 0; i < x.size(); ++i) mean[group(i)] += x[i], count[group(i)] += 1;
  for (size_t g = 0; g < n; ++g) mean[g] /= count[g];
  for (size_t i = 0; i < x.size(); ++i) var[group(i)] += std::pow(x[i] - mean[group(i)], 2) / count[group(i)];
  reference::Array y(a[0].shape);
  for (size_t i = 0; i < x.size(); ++i) {
    const size_t c = static_cast<size_t>(channel(static_cast<int64_t>(i)));
    y.data[i] = (x[i] - mean[group(i)]) / std::sqrt(var[group(i)] + 1e-5);
    if (!a[1].data.empty()) y.data[i] *= a[1].data[c];
    if (!a[2].data.empty()) y.data[i] += a[2].data[c];
  }
  return y;
}

OpCase layer_norm_case(const std::string& what, const Shape& x, const Shape& normalized, bool affine,
                       const Shape& large) {
  const auto inputs = [=](const Shape& shape) {
    const Kind kind = affine ? Kind::differentiable : Kind::absent;
    return OpInputs{{shape, -2, 3}, {normalized, 0.5, 2, kind}, {normalized, -1, 1, kind}};
  };
  const int64_t width = normalized.numel();
  return {.name = "layer_norm, " + what,
          .samples = {inputs(x)},
          .large = inputs(large),
          .op = [=](const Tensors& t) { return layer_norm(t[0], normalized, t[1], t[2]); },
          .reference =
              [=](const Arrays& a) {
                return normalize_groups(
                    a, a[0].shape.numel() / width, [=](int64_t i) { return i / width; },
                    [=](int64_t i) { return i % width; });
              },
          .roundings = 64};
}

OpCase group_norm_case(const std::string& what, const Shape& x, int64_t groups, bool affine, const Shape& large) {
  const auto inputs = [=](const Shape& shape) {
    const Kind kind = affine ? Kind::differentiable : Kind::absent;
    const Shape channels{shape[shape.rank() - 1]};
    return OpInputs{{shape, -2, 3}, {channels, 0.5, 2, kind}, {channels, -1, 1, kind}};
  };
  return {.name = "group_norm, " + what,
          .samples = {inputs(x)},
          .large = inputs(large),
          .op = [=](const Tensors& t) { return group_norm(t[0], groups, t[1], t[2]); },
          .reference =
              [=](const Arrays& a) {
                const int64_t c = a[0].shape[a[0].shape.rank() - 1], sample = a[0].shape.numel() / a[0].shape[0];
                return normalize_groups(
                    a, a[0].shape[0] * groups, [=](int64_t i) { return i / sample * groups + i % c / (c / groups); },
                    [=](int64_t i) { return i % c; });
              },
          .roundings = 64};
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
  rows.push_back(masked_case("mask, 2-D", {7, 3}, -1, {391, 33}));
  rows.push_back(masked_case("mask, sequences", {3, 4, 2}, -1, {67, 31, 17}));
  rows.push_back(masked_case("mask, channels first", {3, 2, 4}, 1, {67, 17, 31}));
  rows.push_back(layer_norm_case("2-D", {4, 5}, {5}, true, {2391, 5}));
  rows.push_back(layer_norm_case("two axes", {3, 2, 4}, {2, 4}, true, {67, 2, 4}));
  rows.push_back(layer_norm_case("no scale, no shift", {2, 3, 4}, {4}, false, {67, 31, 4}));
  rows.push_back(group_norm_case("one group", {3, 4}, 1, true, {391, 12}));
  rows.push_back(group_norm_case("images", {2, 3, 2, 6}, 3, true, {37, 9, 7, 12}));
  rows.push_back(group_norm_case("instance norm, no scale, no shift", {2, 4, 3}, 3, false, {19, 31, 3}));
  return rows;
}

}  // namespace tandem::test
