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
  lr_ = lr;
  for (Slot& slot : slots_) {
    if (slot.hyper.defined()) write_hyper(slot);
  }
}

int64_t Optimizer::steps() const { return static_cast<int64_t>(steps_.item()); }

void Optimizer::step() {
  for (Slot& slot : slots_) {  // whatever can fail, before anything moves
    const Tensor grad = slot.parameter.grad();
    if (!grad.defined()) continue;
    check_gradient(slot, grad);
    prepare(slot);
  }
  steps_.increment();
  for (Slot& slot : slots_) {
    const Tensor grad = slot.parameter.grad();
    if (!grad.defined()) continue;
    slot.steps.increment();
    update(slot, grad);
    slot.parameter.bump_version();
  }
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
void Optimizer::prepare(Slot& slot) const {
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
  if (slot.hyper.defined() && slot.hyper.device() == p.device()) return;
  slot.hyper = empty({static_cast<int64_t>(slot.written.size())}, {Dtype::float64, p.device()});
  slot.steps = slot.steps.defined() ? slot.steps.to(p.device()) : zeros({}, {Dtype::int64, p.device()});
  slot.written.fill(std::nan(""));  // equal to nothing
  write_hyper(slot);
}

void Optimizer::write_hyper(Slot& slot) const {
  const std::array<double, 5> values = hyper(slot);
  if (values == slot.written) return;
  if (slot.hyper.device().kind == Device::Kind::cpu) {
    std::copy(values.begin(), values.end(), slot.hyper.mutable_data<double>());
  } else {
    slot.hyper.copy_from(Tensor::from(std::span<const double>(values), slot.hyper.shape()));
  }
  slot.written = values;
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
