// optimizer, train_network.
#include <fmt/format.h>

#include <memory>

#include "tandem/core/autograd.h"
#include "tandem/core/ops.h"
#include "tandem/layers/activation.h"
#include "tandem/layers/batch_norm.h"
#include "tandem/layers/conv2d.h"
#include "tandem/layers/dense.h"
#include "tandem/layers/pool.h"
#include "tandem/layers/sequential.h"
#include "tandem/optim/optimizer.h"
#include "vector_case.h"

namespace tandem::vectors {
namespace {

// hyper's number `key`, taken out of `hyper` so that what is left over can be refused.
double take(Json& hyper, const char* key, double otherwise) {
  if (!hyper.contains(key)) return otherwise;
  const Json value = hyper[key];
  hyper.erase(key);
  return value.is_boolean() ? value.get<bool>() : number(value);
}

// PyTorch's optimizers, which decay every parameter.
std::unique_ptr<Optimizer> optimizer_of(const Case& c, std::vector<Parameter> parameters) {
  Json hyper = c["hyper"];
  const std::string name = c["optimizer"].get<std::string>();
  std::unique_ptr<Optimizer> result;
  if (name == "SGD") {
    result = std::make_unique<SGD>(std::move(parameters), SGDOptions{.lr = take(hyper, "lr", 0.01),
                                                                     .momentum = take(hyper, "momentum", 0),
                                                                     .dampening = take(hyper, "dampening", 0),
                                                                     .weight_decay = take(hyper, "weight_decay", 0),
                                                                     .nesterov = take(hyper, "nesterov", 0) != 0,
                                                                     .decay = Decay::all});
  } else if (name == "Adam" || name == "AdamW") {
    const Json betas = hyper.value("betas", Json::array({0.9, 0.999}));
    hyper.erase("betas");
    if (take(hyper, "amsgrad", 0) != 0) throw Unsupported("Adam has no amsgrad");
    const auto fill = [&](auto options) {  // Adam's and AdamW's options differ in weight_decay's default only
      options.lr = take(hyper, "lr", options.lr);
      options.beta1 = number(betas.at(0));
      options.beta2 = number(betas.at(1));
      options.eps = take(hyper, "eps", options.eps);
      options.weight_decay = take(hyper, "weight_decay", options.weight_decay);
      options.decay = Decay::all;
      return options;
    };
    if (name == "Adam")
      result = std::make_unique<Adam>(std::move(parameters), fill(AdamOptions{}));
    else
      result = std::make_unique<AdamW>(std::move(parameters), fill(AdamWOptions{}));
  } else {
    throw FormatError(fmt::format("unknown optimizer \"{}\"", name));
  }
  if (!hyper.empty()) throw FormatError(fmt::format("unknown setting of {}: {}", name, hyper.dump()));
  return result;
}

// ---- train_network -----------------------------------------------------------------------------------

// The file flattens images in C, H, W order.
class FlattenChannelsFirst : public Flatten {
 public:
  Tensor forward(const Tensor& x) override { return Flatten::forward(x.rank() == 4 ? channels_first(x) : x); }
};

int64_t size_of_layer(const Json& layer, const char* key, int64_t otherwise) {
  return layer.contains(key) ? layer[key].get<int64_t>() : otherwise;
}

void add_layer(Sequential& model, const Json& layer, Dtype dtype) {
  const std::string type = layer.at("type").get<std::string>();
  const bool bias = layer.value("bias", true);
  const auto known = [&](std::initializer_list<const char*> keys) { require_known(type, layer, keys); };
  if (type == "linear") {
    known({"type", "in", "out", "bias", "weight0", "bias0"});
    model.add<Dense>(layer.at("in").get<int64_t>(), layer.at("out").get<int64_t>(),
                     DenseOptions{.bias = bias, .dtype = dtype});
  } else if (type == "conv2d") {
    known({"type", "in", "out", "kernel", "stride", "padding", "dilation", "groups", "bias", "weight0", "bias0"});
    model.add<Conv2d>(layer.at("in").get<int64_t>(), layer.at("out").get<int64_t>(),
                      Conv2dLayerOptions{.kernel = layer.at("kernel").get<int64_t>(),
                                         .stride = size_of_layer(layer, "stride", 1),
                                         .padding = size_of_layer(layer, "padding", 0),
                                         .dilation = size_of_layer(layer, "dilation", 1),
                                         .groups = size_of_layer(layer, "groups", 1),
                                         .bias = bias,
                                         .dtype = dtype});
  } else if (type == "batchnorm1d" || type == "batchnorm2d") {
    known({"type", "features", "eps", "momentum", "affine", "track_running_stats", "weight0", "bias0"});
    BatchNormLayerOptions options{.eps = layer.contains("eps") ? number(layer["eps"]) : 1e-5, .dtype = dtype};
    if (layer.contains("momentum"))
      options.momentum =
          layer["momentum"].is_null() ? Momentum::cumulative() : Momentum::pytorch(number(layer["momentum"]));
    options.scale = options.shift = layer.value("affine", true);
    options.track_running_stats = layer.value("track_running_stats", true);
    model.add<BatchNorm>(layer.at("features").get<int64_t>(), options);
  } else if (type == "relu") {
    known({"type"});
    model.add<ReLU>();
  } else if (type == "maxpool2") {
    known({"type"});
    model.add<MaxPool2d>();
  } else if (type == "flatten") {
    known({"type"});
    model.add<FlattenChannelsFirst>();
  } else {
    throw FormatError(fmt::format("unknown layer type \"{}\"", type));
  }
}

// A layer's own parameters and buffers by their last name: "weight", "bias", "running_mean", ...
Results members_of(Module& layer) {
  struct Collect : MemberVisitor {
    Results found;
    void parameter(const char* name, Tensor& tensor, Role, const Init&, int64_t, int64_t) override {
      found[name] = tensor;
    }
    void buffer(const char* name, Tensor& tensor, bool) override { found[name] = tensor; }
    void child(const std::string&, Module&) override {}
  } collect;
  layer.members(collect);
  return collect.found;
}

Tensor in_file_layout(const Tensor& x) { return x.defined() && x.rank() == 4 ? channels_first(x) : x; }
Tensor input(const Case& c, const Json& x) {
  const Tensor value = c.tensor(x);
  return value.rank() == 4 ? channels_last(value) : value;
}

void set_start(Case& c, Module& layer, const Json& description) {
  Results members = members_of(layer);
  for (const char* name : {"weight", "bias"}) {
    const std::string key = std::string(name) + "0";
    if (!description.contains(key)) continue;
    if (!members.count(name)) throw FormatError(fmt::format("{} given for a layer without {}", key, name));
    members[name].copy_from(input(c, description[key]));
  }
}

// Each layer's values with `want`, an object per layer; `of` says which tensor of a member is meant.
template <class F>
void compare_layers(Case& c, Sequential& model, const std::string& where, const Json& want, F of) {
  if (want.size() != model.size())
    throw FormatError(fmt::format("{}: {} layers, the network has {}", where, want.size(), model.size()));
  for (size_t i = 0; i < model.size(); ++i) {
    const Results members = members_of(model[i]);
    for (const auto& [name, value] : want[i].items()) {
      const std::string quantity = fmt::format("{}[{}].{}", where, i, name);
      const auto found = members.find(name);
      const Tensor got = found == members.end() ? Tensor() : in_file_layout(of(found->second));
      const bool is_running = name.rfind("running", 0) == 0;
      if (!got.defined())
        c.fail(quantity + ": expected by the file, but the network has none");
      else
        c.compare(quantity,
                  name == "num_batches_tracked" ? name
                  : where == "grads"            ? "grads"
                  : is_running                  ? "running"
                                                : "params",
                  value, got);
    }
  }
}

}  // namespace

void check_optimizer(Case& c) {
  const Json& problem = c["problem"];
  require_known("problem", problem, {"a", "t", "p0", "noise", "zero_grad_steps", "grad"});
  const Tensor a = c.tensor(problem.at("a")), target = c.tensor(problem.at("t")), noise = c.tensor(problem.at("noise"));
  Tensor p = c.tensor(problem.at("p0")).set_requires_grad(true);
  const auto optimizer = optimizer_of(c, {p});
  const std::vector<double> lr = numbers(c["lr_per_step"]);
  const auto zero_steps = problem.at("zero_grad_steps").get<std::vector<int64_t>>();
  std::vector<Tensor> rows, losses;
  {
    const NoGrad no_grad;
    for (int64_t step = 0; step < static_cast<int64_t>(lr.size()); ++step) {
      const bool is_zero = std::find(zero_steps.begin(), zero_steps.end(), step) != zero_steps.end();
      const Tensor here = p.detach();
      losses.push_back((sum(a * (here - target) * (here - target)) * 0.5).reshape({1}));
      p.set_grad(is_zero ? zeros_like(p) : a * (here - target) + slice(noise, 0, step, step + 1).reshape(p.shape()));
      optimizer->set_lr(lr[step]);
      optimizer->step();
      rows.push_back(p.detach().clone().reshape({1, p.numel()}));
    }
  }
  c.compare_all("", c["expect"], {{"p_after_step", concat(rows, 0)}, {"quadratic_loss_before_step", concat(losses, 0)}},
                "p");
}

void check_train_network(Case& c) {
  if (c["loss"] != "cross_entropy mean") throw FormatError("unknown loss");
  Sequential model;
  for (const Json& layer : c["layers"]) add_layer(model, layer, c.dtype());
  model.to(c.device());
  for (size_t i = 0; i < model.size(); ++i) set_start(c, model[i], c["layers"][i]);
  const auto optimizer = optimizer_of(c, model.parameters());
  const double accumulate = number(c["accumulate"]);
  const Json& steps = c["steps"];
  for (size_t s = 0; s < steps.size(); ++s) {
    optimizer->zero_grad();
    require_known("a step", steps[s], {"micro", "grads"});
    const Json& micro = steps[s].at("micro");
    for (size_t m = 0; m < micro.size(); ++m) {
      require_known("a micro-batch", micro[m], {"x", "labels", "loss"});
      const Tensor loss = cross_entropy(model(input(c, micro[m].at("x"))), c.labels(micro[m].at("labels")));
      (loss * (1 / accumulate)).backward();
      c.compare(fmt::format("loss of step {}.{}", s, m), "loss", micro[m].at("loss"), loss);
    }
    if (steps[s].contains("grads"))
      compare_layers(c, model, "grads", steps[s]["grads"], [](const Tensor& t) { return t.grad(); });
    optimizer->step();
  }
  const Json& expect = c["expect"];
  for (const auto& [name, want] : expect.items()) {
    if (name == "final") {
      compare_layers(c, model, "final", want, [](const Tensor& t) { return t.detach(); });
    } else if (name == "eval_logits") {
      const NoGrad no_grad;
      model.eval();
      c.compare("eval_logits", "eval_logits", want, model(input(c, expect.at("eval_x"))));
    } else if (name != "eval_x") {
      c.fail(fmt::format("{}: expected by the file, but this runner has no such result", name));
    }
  }
}

}  // namespace tandem::vectors
