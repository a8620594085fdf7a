// linear, conv2d, relu, cross_entropy, pooling.
#include "tandem/core/ops.h"

#include <fmt/format.h>

#include "vector_case.h"

namespace tandem::vectors {
namespace {

Size2 size_of(const Json& value) {
  if (value.is_number()) return value.get<int64_t>();
  return {value.at(0).get<int64_t>(), value.at(1).get<int64_t>()};
}

Tensor leaf(Tensor x) {
  if (x.defined()) x.set_requires_grad(true);
  return x;
}

void compare_pool(Case& c, Tensor (*pool)(const Tensor&, const Pool2dOptions&)) {
  Pool2dOptions options{.kernel = size_of(c["kernel"])};
  if (c.has("stride")) options.stride = size_of(c["stride"]);
  if (c.has("padding")) options.padding = size_of(c["padding"]);
  if (c.has("dilation")) options.dilation = size_of(c["dilation"]);
  if (c.has("ceil_mode")) options.ceil_mode = c["ceil_mode"].get<bool>();
  if (c.has("count_include_pad")) options.count_padding = c["count_include_pad"].get<bool>();
  const Tensor x = leaf(c.tensor(c["x"]));
  const Tensor y = channels_first(pool(channels_last(x), options));
  y.backward(c.tensor(c["dy"]));
  c.compare_all("", c["expect"], {{"y", y}, {"dx", x.grad()}});
}

}  // namespace

void check_linear(Case& c) {
  const Tensor x = leaf(c.tensor(c["x"])), weight = leaf(c.tensor(c["weight"])), bias = leaf(c.tensor_or_none("bias"));
  const int64_t in = weight.dim(1), out = weight.dim(0);
  const Tensor rows = x.rank() == 2 ? x : x.reshape({x.numel() / in, in});  // any leading axes
  Tensor y = linear(rows, weight, bias);
  if (x.rank() != 2) y = y.reshape(x.shape().with(x.rank() - 1, out));
  y.backward(c.tensor(c["dy"]));
  c.compare_all(
      "", c["expect"],
      {{"y", y}, {"dx", x.grad()}, {"dweight", weight.grad()}, {"dbias", bias.defined() ? bias.grad() : bias}});
}

void check_conv2d(Case& c) {
  const Tensor x = leaf(c.tensor(c["x"])), weight = leaf(c.tensor(c["weight"])), bias = leaf(c.tensor_or_none("bias"));
  Conv2dOptions options;
  if (c.has("stride")) options.stride = size_of(c["stride"]);
  if (c.has("padding")) options.padding = size_of(c["padding"]);
  if (c.has("dilation")) options.dilation = size_of(c["dilation"]);
  if (c.has("groups")) options.groups = c["groups"].get<int64_t>();
  const Tensor y = channels_first(conv2d(channels_last(x), channels_last(weight), bias, options));
  y.backward(c.tensor(c["dy"]));
  c.compare_all(
      "", c["expect"],
      {{"y", y}, {"dx", x.grad()}, {"dweight", weight.grad()}, {"dbias", bias.defined() ? bias.grad() : bias}});
}

void check_relu(Case& c) {
  const Tensor x = leaf(c.tensor(c["x"]));
  const Tensor y = relu(x);
  y.backward(c.tensor(c["dy"]));
  c.compare_all("", c["expect"], {{"y", y}, {"dx", x.grad()}});
}

void check_cross_entropy(Case& c) {
  const Tensor logits = leaf(c.tensor(c["logits"]));
  const Tensor labels = c.labels(c["labels"]);
  if (c.has("labels_shape") && shape_of(c["labels_shape"]).numel() != labels.numel())
    throw FormatError(fmt::format("{} labels do not fill labels_shape {}", labels.numel(), c["labels_shape"].dump()));
  CrossEntropyOptions options;
  if (c.has("label_smoothing")) options.label_smoothing = number(c["label_smoothing"]);
  const std::string reduction = c["reduction"].get<std::string>();
  if (reduction == "none")
    options.reduction = Reduction::none;
  else if (reduction == "sum")
    options.reduction = Reduction::sum;
  else if (reduction != "mean")
    throw FormatError(fmt::format("unknown reduction \"{}\"", reduction));

  Tensor rows = logits;  // [N, C, ...] as [N * ..., C]
  if (logits.rank() > 2) {
    std::vector<int> last{0};
    for (int axis = 2; axis < logits.rank(); ++axis) last.push_back(axis);
    last.push_back(1);
    rows = permute(logits, last).reshape({logits.numel() / logits.dim(1), logits.dim(1)});
  }
  Tensor loss = cross_entropy(rows, labels, options);
  if (options.reduction == Reduction::none && c.has("labels_shape")) loss = loss.reshape(shape_of(c["labels_shape"]));
  const Json& dloss = c["dloss"];
  loss.backward(dloss.is_object() ? c.tensor(dloss)
                                  : full(loss.shape(), number(dloss), {.dtype = c.dtype(), .device = c.device()}));
  const std::vector<int32_t> best = argmax(rows);
  c.compare_all("", c["expect"],
                {{"loss", loss},
                 {"dlogits", logits.grad()},
                 {"argmax", Tensor::from(best, {static_cast<int64_t>(best.size())})}});
}

void check_max_pool2d(Case& c) { compare_pool(c, max_pool2d); }
void check_avg_pool2d(Case& c) { compare_pool(c, avg_pool2d); }

}  // namespace tandem::vectors
