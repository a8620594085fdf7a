// batch_norm, batch_norm_generated, batch_norm_shared, batch_norm_contract, momentum_conversion.
#include <fmt/format.h>

#include <cmath>
#include <limits>

#include "batch_norm_layer.h"
#include "tandem/core/autograd.h"
#include "tandem/core/error.h"
#include "tandem/core/random.h"

namespace tandem::vectors {
namespace {

bool flag(const Json& config, const char* key, bool otherwise) {
  return config.contains(key) ? config[key].get<bool>() : otherwise;
}

bool is_keras(const Json& config) {
  const std::string convention = config.at("convention").get<std::string>();
  if (convention != "keras" && convention != "pytorch")
    throw FormatError(fmt::format("unknown convention \"{}\"", convention));
  return convention == "keras";
}

// A layer from `convention`, `num_features`, `eps`, `momentum` and the rest, where they are given.
BatchNorm layer_of(const Json& config, Dtype dtype) {
  const bool keras = is_keras(config);
  BatchNormLayerOptions o{.eps = keras ? 1e-3 : 1e-5,
                          .momentum = keras ? Momentum::keras(0.99) : Momentum::pytorch(0.1),
                          .unbiased_running_var = !keras,
                          .channel_axis = keras ? -1 : 1,
                          .allow_one_value = keras,
                          .dtype = dtype};
  if (config.contains("eps")) o.eps = number(config["eps"]);
  if (config.contains("momentum")) {
    const Json& m = config["momentum"];
    o.momentum = m.is_null() ? Momentum::cumulative()
                 : keras     ? Momentum::keras(number(m))
                             : Momentum::pytorch(number(m));
  }
  const bool affine = flag(config, "affine", true);  // both at once, as PyTorch calls them
  o.scale = flag(config, "scale", affine);
  o.shift = flag(config, "center", affine);
  o.track_running_stats = flag(config, "track_running_stats", true);
  if (config.contains("channel_axis")) o.channel_axis = config["channel_axis"].get<int>();
  return BatchNorm(config.at("num_features").get<int64_t>(), o);
}

void set(Tensor& to, const Tensor& value) {
  if (to.defined() && value.defined()) to.copy_from(value);
}

}  // namespace

BatchNorm layer_of(const Case& c) {
  const Json config = c.part({"convention", "num_features", "eps", "momentum", "affine", "scale", "center",
                              "track_running_stats", "channel_axis"});
  BatchNorm layer = layer_of(config, c.dtype());
  set(layer.weight, c.tensor_or_none("gamma"));
  set(layer.bias, c.tensor_or_none("beta"));
  const bool keras = is_keras(config);
  set(layer.running_mean, c.tensor_or_none(keras ? "moving_mean0" : "running_mean0"));
  set(layer.running_var, c.tensor_or_none(keras ? "moving_variance0" : "running_var0"));
  if (c.has("num_batches_tracked0") && layer.num_batches_tracked.defined())
    layer.num_batches_tracked.fill(number(c["num_batches_tracked0"]));
  layer.to(c.device());
  return layer;
}

std::vector<std::vector<double>> state_of(Module& layer) {
  std::vector<std::vector<double>> state;
  for (const auto& [name, tensor] : layer.state_dict()) state.push_back(tensor.to(Dtype::float64).to_vector<double>());
  return state;
}

namespace {

// The batch's mean and biased variance.
RunningStats batch_statistics(const Tensor& x, int channel_axis, const Tensor& mask = {}) {
  Moments batch = moments(x, channel_axis, mask);
  for (double& v : batch.m2) v /= batch.count;
  const Shape channels{x.dim(channel_axis)};
  return {Tensor::from(batch.mean, channels), Tensor::from(batch.m2, channels), {}, {}};
}

Results results_of(const Tensor& x, const Tensor& y, const BatchNorm& layer, int channel_axis,
                   const Tensor& mask = {}) {
  const RunningStats batch = batch_statistics(x.detach(), channel_axis, mask);
  auto grad = [](const Tensor& t) { return t.defined() ? t.grad() : Tensor(); };
  return {{"y", y},
          {"dx", x.grad()},
          {"dgamma", grad(layer.weight)},
          {"dbeta", grad(layer.bias)},
          {"batch_mean", batch.mean},
          {"batch_var", batch.var},
          {"running_mean", layer.running_mean},
          {"running_var", layer.running_var},
          {"moving_mean", layer.running_mean},
          {"moving_variance", layer.running_var},
          {"num_batches_tracked", layer.num_batches_tracked}};
}

// Tandem leaves a channel's running statistics alone when a batch statistic is not finite: where the file expects
// a non-finite running value, the one before the step is right too. Later steps then go on from the file's.
void accept_guarded(const Json& want, Tensor& running, const Tensor& before) {
  const std::vector<double> expected = numbers(want.at("data")), old = before.to(Dtype::float64).to_vector<double>();
  std::vector<double> now = running.to(Dtype::float64).to_vector<double>();
  for (size_t i = 0; i < now.size() && i < expected.size(); ++i) {
    if (!std::isfinite(expected[i]) && now[i] == old[i]) now[i] = std::numeric_limits<double>::quiet_NaN();
  }
  running.copy_from(Tensor::from(now, running.shape()));
}

// The mask of a step, or of the whole case; empty if there is none. Its shape is x's without the last axis.
Tensor mask_of(const Case& c, const Json& step) {
  if (step.contains("mask") && !step["mask"].is_null()) return c.tensor(step["mask"]);
  return c.tensor_or_none("mask");
}

// The data of step[key + "_view"], copied on entry, which must be those of step[key]; the latter without a view.
Tensor strided(Case& c, const Json& step, const std::string& key, const std::string& where) {
  const Tensor logical = c.tensor(step.at(key));
  if (!step.contains(key + "_view")) return logical;
  const Json& view = step[key + "_view"];
  require_known("a view", view, {"storage", "shape", "strides", "offset"});
  const std::vector<double> storage = c.tensor(view.at("storage")).to(Dtype::float64).to_vector<double>();
  const Shape shape = shape_of(view.at("shape"));
  const auto strides = view.at("strides").get<std::vector<int64_t>>();
  const auto offset = view.at("offset").get<int64_t>();
  int64_t low = offset, high = offset;  // the first and last element that the view reaches
  for (int a = 0; a < shape.rank() && a < static_cast<int>(strides.size()); ++a)
    (strides[a] < 0 ? low : high) += (shape[a] - 1) * strides[a];
  if (low < 0 || high >= static_cast<int64_t>(storage.size())) throw FormatError("the view leaves its storage");
  const Tensor copied = Tensor::from_strided(storage.data() + offset, shape, std::span<const int64_t>(strides));
  if (copied.shape() != logical.shape() || copied.to_vector<double>() != logical.to(Dtype::float64).to_vector<double>())
    c.fail(fmt::format("{}{}_view: the strided data, copied on entry, differ from {}", where, key, key));
  return copied.to(c.dtype()).to(logical.device());
}

void run_step(Case& c, BatchNorm& layer, const Json& step, const std::string& where, int channel_axis) {
  require_known("a step", step, {"mode", "x", "dy", "x_view", "dy_view", "mask", "expect"});
  const std::string mode = step.at("mode").get<std::string>();
  if (mode != "train" && mode != "eval") throw FormatError(fmt::format("unknown mode \"{}\"", mode));
  layer.train(mode == "train");
  for (Tensor* p : {&layer.weight, &layer.bias})
    if (p->defined()) p->zero_grad();
  Tensor x = strided(c, step, "x", where);
  const Tensor mask = mask_of(c, step);
  x.set_requires_grad(true);
  const bool tracked = layer.running_mean.defined();
  const Tensor mean_before = tracked ? layer.running_mean.clone() : Tensor(),
               var_before = tracked ? layer.running_var.clone() : Tensor();
  const Tensor y = layer.forward(x, mask);
  if (step.contains("dy")) y.backward(strided(c, step, "dy", where));

  const Json& expect = step.at("expect");
  if (c.has_tag("nonfinite") && tracked) {
    for (const char* name : {"running_mean", "moving_mean"})
      if (expect.contains(name)) accept_guarded(expect[name], layer.running_mean, mean_before);
    for (const char* name : {"running_var", "moving_variance"})
      if (expect.contains(name)) accept_guarded(expect[name], layer.running_var, var_before);
  }
  c.compare_all(where, expect, results_of(x, y, layer, channel_axis, mask));
}

uint64_t splitmix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// Element i is dtype(center + scale * (u_i - 0.5)), u_i from splitmix64(seed + i).
Tensor generate(const Case& c, const Json& rule) {
  require_known("x_gen", rule, {"kind", "seed", "shape", "center", "scale"});
  if (rule.at("kind") != "splitmix64-uniform") throw FormatError("unknown kind of x_gen");
  const auto seed = rule.at("seed").get<uint64_t>();
  const double center = number(rule.at("center")), scale = number(rule.at("scale"));
  Tensor x = empty(shape_of(rule.at("shape")), {.dtype = c.dtype()});
  auto value = [&](uint64_t i) {
    return center + scale * (static_cast<double>(splitmix64(seed + i) >> 11) * 0x1p-53 - 0.5);
  };
  if (c.dtype() == Dtype::float32) {
    float* data = x.mutable_data<float>();
    for (int64_t i = 0; i < x.numel(); ++i) data[i] = static_cast<float>(value(i));
  } else {
    double* data = x.mutable_data<double>();
    for (int64_t i = 0; i < x.numel(); ++i) data[i] = value(i);
  }
  return x.to(c.device());
}

// The elements of x at these flat positions.
Tensor pick(const Tensor& x, const std::vector<int32_t>& at) {
  return gather_rows(x.detach().reshape({x.numel()}), Tensor::from(at, {static_cast<int64_t>(at.size())}, x.device()));
}

// [[index, value], ...] against x.
void compare_at(Case& c, const std::string& quantity, const std::string& tolerance, const Json& pairs,
                const Tensor& x) {
  std::vector<int32_t> at;
  Json want = Json::array();
  for (const Json& pair : pairs) {
    at.push_back(pair.at(0).get<int32_t>());
    want.push_back(pair.at(1));
  }
  c.compare(quantity, tolerance, want, pick(x, at));
}

}  // namespace

void check_batch_norm(Case& c) {
  BatchNorm layer = layer_of(c);
  const int channel_axis = c["channel_axis"].get<int>();
  const Json& steps = c["steps"];
  for (size_t i = 0; i < steps.size(); ++i) run_step(c, layer, steps[i], fmt::format("step {} ", i), channel_axis);
}

void check_batch_norm_generated(Case& c) {
  BatchNorm layer = layer_of(c);
  layer.train(c["mode"] == "train");
  const Tensor x = generate(c, c["x_gen"]);
  // The file prints x_check with nine digits.
  std::vector<int32_t> at;
  for (const Json& pair : c["x_check"]) {
    at = {pair.at(0).get<int32_t>()};
    const double got = pick(x, at).item(), want = number(pair.at(1));
    if (std::fabs(got - want) > 1e-8 * std::fabs(want))
      c.fail(fmt::format("x_check[{}]: generated {:.9g}, want {:.9g}", at[0], got, want));
  }
  const NoGrad no_grad;
  const Tensor y = layer(x);
  const int axis = c["channel_axis"].get<int>();
  const RunningStats batch = batch_statistics(x, axis);
  const auto channels = c["expect"].at("channels").get<std::vector<int32_t>>();
  const Results per_channel = {{"batch_mean", batch.mean},           {"batch_var", batch.var},
                               {"running_mean", layer.running_mean}, {"running_var", layer.running_var},
                               {"moving_mean", layer.running_mean},  {"moving_variance", layer.running_var}};
  for (const auto& [name, want] : c["expect"].items()) {
    if (name == "channels") continue;
    if (name == "y_at")
      compare_at(c, "y", "y", want, y);
    else if (name == "num_batches_tracked")
      c.compare(name, name, want, layer.num_batches_tracked);
    else if (per_channel.count(name))
      c.compare(name, name, want, pick(per_channel.at(name), channels));
    else
      c.fail(fmt::format("{}: expected by the file, but this runner has no such result", name));
  }
}

// One layer called on x1, then on x2; both outputs are back-propagated.
void check_batch_norm_shared(Case& c) {
  BatchNorm layer = layer_of(c);
  Tensor x1 = c.tensor(c["x1"]), x2 = c.tensor(c["x2"]);
  x1.set_requires_grad(true);
  x2.set_requires_grad(true);
  const Tensor y1 = layer(x1), y2 = layer(x2);
  y1.backward(c.tensor(c["dy1"]));
  y2.backward(c.tensor(c["dy2"]));
  Results results = results_of(x1, y1, layer, c["channel_axis"].get<int>());
  results["y1"] = y1;
  results["y2"] = y2;
  results["dx1"] = x1.grad();
  results["dx2"] = x2.grad();
  c.compare_all("", c["expect"], results);
}

namespace {

// What the contract describes; throws tandem::Error where Tandem refuses it.
void run_contract(const Case& c, std::unique_ptr<BatchNorm>& layer) {
  const std::string mode = c["mode"].get<std::string>();
  require_known("config", c["config"],
                {"convention", "num_features", "eps", "momentum", "affine", "scale", "center", "track_running_stats",
                 "channel_axis"});
  layer = std::make_unique<BatchNorm>(layer_of(c["config"], Dtype::float32));
  if (mode == "construct") return;
  if (mode == "load") {  // from a layer of one channel more where that must fail
    Json other = c["config"];
    if (c["expect"] == "error") other["num_features"] = other["num_features"].get<int64_t>() + 1;
    BatchNorm saved = layer_of(other, Dtype::float32);
    layer->load_state_dict(saved.state_dict());
    return;
  }
  if (mode != "train" && mode != "eval") throw FormatError(fmt::format("unknown mode \"{}\"", mode));
  layer->train(mode == "train");
  Tensor x = empty(shape_of(c["x_shape"]), {.device = c.device()});
  fill_uniform(x, -1, 1, Stream(1, "contract"));
  layer->to(c.device());
  (*layer)(x);
}

}  // namespace

void check_batch_norm_contract(Case& c) {
  const std::string expect = c["expect"].get<std::string>();
  if (expect != "error" && expect != "ok") throw FormatError(fmt::format("unknown expectation \"{}\"", expect));
  c.part({"x_shape", "must_mention"});  // not every mode and expectation needs them
  std::unique_ptr<BatchNorm> layer;
  std::string message;
  bool refused = false;
  try {
    run_contract(c, layer);
  } catch (const Error& error) {
    refused = true;
    message = error.what();
  }
  if (refused != (expect == "error"))
    return c.fail(refused ? fmt::format("expected no error, got \"{}\"", message) : "expected an error, got none");
  c.count_check();
  if (!refused) return;
  for (const Json& text : c["must_mention"]) {
    if (message.find(text.get<std::string>()) == std::string::npos)
      c.fail(fmt::format("the message must mention \"{}\", got \"{}\"", text.get<std::string>(), message));
  }
  if (layer) {
    BatchNorm fresh = layer_of(c["config"], Dtype::float32);
    if (state_of(*layer) != state_of(fresh)) c.fail("the refused call changed the layer's state");
  }
}

void check_momentum_conversion(Case& c) {
  const double new_weight = Momentum::keras(number(c["keras_momentum"])).new_weight;
  c.compare_all("", c["expect"], {{"pytorch_momentum", full({}, new_weight, {.dtype = Dtype::float64})}});
}

}  // namespace tandem::vectors
