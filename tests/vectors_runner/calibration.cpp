// fold_bn, recalibrate, merge_moments.
#include <fmt/format.h>

#include "batch_norm_layer.h"
#include "tandem/core/moments.h"
#include "tandem/layers/conv2d.h"
#include "tandem/layers/dense.h"
#include "tandem/layers/fold.h"
#include "tandem/layers/recalibrate.h"
#include "tandem/layers/sequential.h"

namespace tandem::vectors {

void check_fold_bn(Case& c) {
  const std::string kind = c["kind"].get<std::string>();
  if (kind != "linear" && kind != "conv2d") throw FormatError(fmt::format("unknown kind \"{}\"", kind));
  const bool conv = kind == "conv2d";
  const auto in = [&](const Tensor& t) { return conv ? channels_last(t) : t; };
  const auto out = [&](const Tensor& t) { return conv ? channels_first(t) : t; };
  const Tensor weight = in(c.tensor(c["weight"])), bias = c.tensor_or_none("bias");
  const Tensor gamma = c.tensor_or_none("gamma"), beta = c.tensor_or_none("beta");

  Sequential model;
  if (conv) {
    const Size2 kernel{weight.dim(1), weight.dim(2)};
    auto& layer =
        model.add(Conv2d(weight.dim(3), weight.dim(0), {.kernel = kernel, .bias = bias.defined(), .dtype = c.dtype()}));
    layer.weight.copy_from(weight);
    if (bias.defined()) layer.bias.copy_from(bias);
  } else {
    auto& layer = model.add(Dense(weight.dim(1), weight.dim(0), {.bias = bias.defined(), .dtype = c.dtype()}));
    layer.weight.copy_from(weight);
    if (bias.defined()) layer.bias.copy_from(bias);
  }
  auto& norm = model.add(BatchNorm(
      weight.dim(0), {.eps = number(c["eps"]), .scale = gamma.defined(), .shift = beta.defined(), .dtype = c.dtype()}));
  if (gamma.defined()) norm.weight.copy_from(gamma);
  if (beta.defined()) norm.bias.copy_from(beta);
  norm.running_mean.copy_from(c.tensor(c["running_mean"]));
  norm.running_var.copy_from(c.tensor(c["running_var"]));

  model.to(c.device());
  const auto folded = fold(model);
  if (folded->size() != 1) c.fail("the batch norm was not folded");
  const auto parameters = folded->parameters();
  c.compare_all("", c["expect"],
                {{"weight", out(parameters.at(0).tensor.detach())},
                 {"bias", parameters.at(1).tensor.detach()},
                 {"y", out((*folded)(in(c.tensor(c["x"]))).detach())}},
                "all");
}

// Tandem's definition is all_values.
void check_recalibrate(Case& c) {
  BatchNorm layer = layer_of(c);
  const Json& batches = c["batches"];
  recalibrate(layer, static_cast<int64_t>(batches.size()),
              [&](int64_t i) { return c.tensor(batches.at(static_cast<size_t>(i))); });
  c.compare_all("", c["expect"].at("all_values"),
                {{"running_mean", layer.running_mean}, {"running_var", layer.running_var}}, "all");
}

void check_merge_moments(Case& c) {
  Moments all;
  for (const Json& part : c["parts"])
    all = merge(all, {number(part.at("count")), {number(part.at("mean"))}, {number(part.at("m2"))}});
  const Json& expect = c["expect"];
  const auto scalar = [](double v) { return Tensor::from(std::vector<double>{v}, {}); };
  if (expect.contains("count") && number(expect["count"]) != all.count)
    c.fail(fmt::format("count: got {}, want {}", all.count, expect["count"].dump()));
  c.compare("mean", "mean", expect.at("mean"), scalar(all.mean.at(0)));
  c.compare("m2", "m2", expect.at("m2"), scalar(all.m2.at(0)));
}

}  // namespace tandem::vectors
