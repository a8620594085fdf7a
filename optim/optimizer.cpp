#include "tandem/optim/optimizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <span>

#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"
#include "tandem/core/ops.h"
#include "tandem/core/recorder.h"

namespace tandem {

namespace {

void check_not_negative(const char* optimizer, const char* what, double value) {
  if (!(value >= 0) || !std::isfinite(value)) {
    throw ValueError(fmt::format("{}: expected a finite {} >= 0, got {}", optimizer, what, value));
  }
}

void check_parameter(const char* optimizer, const Parameter& p) {
  const std::string name = p.name.empty() ? "a parameter" : fmt::format("\"{}\"", p.name);
  if (!p.tensor.defined()) throw ValueError(fmt::format("{}: {} is an empty Tensor", optimizer, name));
  if (!p.tensor.is_leaf() || !is_floating(p.tensor.dtype())) {
    throw ValueError(fmt::format("{}: expected leaves of float32 or float64, but {} is {}", optimizer, name,
                                 p.tensor.is_leaf() ? name_of(p.tensor.dtype()) : "computed by the graph"));
  }
}

}  // namespace

Optimizer::Optimizer(const char* name, const std::vector<ParameterGroup>& groups, double lr, double weight_decay,
                     Decay decay, int states)
    : name_(name),
      lr_(lr),
      weight_decay_(weight_decay),
      decay_(decay),
      states_(states),
      steps_(zeros({}, {Dtype::int64})) {
  check_not_negative(name, "lr", lr);
  check_not_negative(name, "weight_decay", weight_decay);
  for (const ParameterGroup& group : groups) {
    check_not_negative(name, "lr_scale", group.lr_scale);
    if (!(group.weight_decay < 0)) check_not_negative(name, "weight_decay of a group", group.weight_decay);
    const double group_decay = group.weight_decay < 0 ? weight_decay : group.weight_decay;
    for (const Parameter& p : group.parameters) {
      check_parameter(name, p);
      for (const Slot& other : slots_) {
        if (View(other.parameter).data == View(p.tensor).data && p.tensor.numel() > 0) {
          throw ValueError(
              fmt::format("{}: parameter \"{}\" {} is given twice", name, p.name, tandem::to_string(p.tensor.shape())));
        }
      }
      const bool decays = decay == Decay::all || p.role == Role::weight;
      slots_.push_back({p.name, p.tensor, group.lr_scale, decays ? group_decay : 0, {}, {}});
    }
  }
  if (slots_.empty()) throw ValueError(fmt::format("{}: expected at least one parameter, got none", name));
}

void Optimizer::zero_grad() {
  for (Slot& slot : slots_) slot.parameter.zero_grad();
}

void Optimizer::set_lr(double lr) {
  check_not_negative(name_, "lr", lr);
  refuse_to_record("sets the learning rate, which a replay would not do again; set it between steps");
  if (lr == lr_) return;
  lr_ = lr;
  for (Settings& s : settings_) launch(Fill{s.lr, lr});
}

int64_t Optimizer::steps() const { return static_cast<int64_t>(steps_.item()); }

void Optimizer::step() { move({}); }

void Optimizer::step(const Tensor& rates, int64_t at) {
  if (rates.rank() != 1 || at < 0 || at >= rates.numel())
    throw ShapeError(
        fmt::format("{}: expected rates[K] and one of them, got {} and {}", name_, describe("rates", rates), at));
  if (rates.dtype() != Dtype::float64)
    throw ValueError(fmt::format("{}: expected rates of float64, got {}", name_, name_of(rates.dtype())));
  for (const Slot& slot : slots_) {
    if (slot.parameter.device() == rates.device()) continue;
    throw DeviceError(fmt::format("{}: expected rates on the device of \"{}\", {}, got {}", name_, slot.name,
                                  tandem::to_string(slot.parameter.device()), tandem::to_string(rates.device())));
  }
  move(rows_of(rates, at, at + 1));
}

void Optimizer::move(const View& rate) {
  std::vector<size_t> moving;
  for (size_t i = 0; i < slots_.size(); ++i) {  // whatever can fail, before anything moves
    const Tensor grad = slots_[i].parameter.grad();
    if (!grad.defined()) continue;
    check_gradient(slots_[i], grad);
    prepare(slots_[i]);
    moving.push_back(i);
  }
  bool counted = false;
  while (!moving.empty()) {
    const Tensor first = slots_[moving[0]].parameter;
    const Settings& settings = settings_of(first.device());
    Moved moved;
    moved.rate = rate ? rate : View(settings.lr);
    Count counters;
    std::vector<size_t> others;
    for (const size_t i : moving) {
      Slot& slot = slots_[i];
      if (slot.parameter.dtype() != first.dtype() || !(slot.parameter.device() == first.device())) {
        others.push_back(i);
        continue;
      }
      counters.n.push_back(slot.steps);
      moved.g.push_back(slot.parameter.grad());
      moved.hyper.push_back(rows_of(settings.hypers, static_cast<int64_t>(i), static_cast<int64_t>(i) + 1));
      moved.steps.push_back(slot.steps);
      moved.p.push_back(slot.parameter);
      moved.state1.push_back(slot.state1);
      moved.state2.push_back(slot.state2);
    }
    moving.swap(others);
    if (!counted && steps_.device() == first.device()) {
      counters.n.push_back(steps_);
      counted = true;
    }
    launch(counters);
    update(moved);
  }
  for (Slot& slot : slots_) {
    if (!slot.parameter.grad().defined()) continue;
    slot.parameter.bump_version();
    slot.steps.bump_version();
  }
  counted ? steps_.bump_version() : steps_.increment();
}

void Optimizer::check_gradient(const Slot& slot, const Tensor& grad) const {
  const Tensor& p = slot.parameter;
  if (grad.dtype() == p.dtype() && grad.shape() == p.shape() && grad.device() == p.device()) return;
  const auto text = [](const Tensor& x) {
    return fmt::format("{} {} on {}", name_of(x.dtype()), tandem::to_string(x.shape()), tandem::to_string(x.device()));
  };
  throw ValueError(
      fmt::format("{}: expected a gradient of {} for \"{}\", got {}; after a change of the model call "
                  "zero_grad() and backward() again",
                  name_, text(p), slot.name, text(grad)));
}

// Zeros in the first step; later the state follows where the parameter went (to(device), to(dtype)).
void Optimizer::prepare(Slot& slot) {
  const Unrecorded once;
  const Tensor& p = slot.parameter;
  for (int i = 0; i < states_; ++i) {
    Tensor& state = i == 0 ? slot.state1 : slot.state2;
    if (!state.defined()) {
      state = zeros_like(p);
    } else if (state.dtype() != p.dtype() || !(state.device() == p.device())) {
      state = state.to(p.device()).to(p.dtype());
    }
  }
  if (!slot.steps.defined()) slot.steps = zeros({}, {Dtype::int64, p.device()});
  if (!(slot.steps.device() == p.device())) slot.steps = slot.steps.to(p.device());
  if (!(steps_.device() == p.device())) steps_ = steps_.to(p.device());
  const bool known =
      std::any_of(settings_.begin(), settings_.end(), [&](const Settings& s) { return s.device == p.device(); });
  if (known) return;
  std::vector<double> hypers;
  for (const Slot& each : slots_) {
    const std::array<double, 5> values = hyper(each);
    hypers.insert(hypers.end(), values.begin(), values.end());
  }
  settings_.push_back({p.device(), Tensor::from(hypers, {static_cast<int64_t>(slots_.size()), 5}, p.device()),
                       Tensor::from(std::vector<double>{lr_}, {1}, p.device())});
}

const Optimizer::Settings& Optimizer::settings_of(Device device) const {
  return *std::find_if(settings_.begin(), settings_.end(), [&](const Settings& s) { return s.device == device; });
}

std::string Optimizer::lr_text() const { return fmt::format("lr {}", lr_); }

std::string Optimizer::decay_text() const {
  if (weight_decay_ == 0) return "";
  return fmt::format(", weight decay {} on {}", weight_decay_, decay_ == Decay::weights ? "weights" : "all parameters");
}

Tensor clip_grad_norm(const std::vector<Parameter>& parameters, double max_norm) {
  if (!(max_norm > 0)) throw ValueError(fmt::format("clip_grad_norm: expected max_norm > 0, got {}", max_norm));
  std::vector<Tensor> grads;
  for (const Parameter& p : parameters) {
    if (p.tensor.grad().defined()) grads.push_back(p.tensor.grad());
    if (!grads.empty() && !(grads.back().device() == grads.front().device())) {
      throw ValueError(fmt::format("clip_grad_norm: expected gradients on one device, got {} and {}",
                                   to_string(grads.front().device()), to_string(grads.back().device())));
    }
  }
  if (grads.empty()) return zeros({}, {Dtype::float64});
  const Device device = grads.front().device();
  Tensor squares = zeros({1}, {Dtype::float64, device});
  for (const Tensor& grad : grads) launch(SumSquares{grad, squares});
  for (const Dtype dtype : {Dtype::float32, Dtype::float64}) {
    Tensor factor = empty({1}, {dtype, device});
    launch(ClipFactor{squares, factor, max_norm});
    for (Tensor& grad : grads) {
      if (grad.dtype() != dtype) continue;
      launch(Scale{factor, grad});
      grad.bump_version();
    }
  }
  return sqrt(squares);
}

}  // namespace tandem
