// Optimizers: move parameters against their gradients.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "tandem/core/parameter.h"

namespace tandem {

// Which parameters weight decay reaches: those with role weight, or all (what PyTorch and Keras do).
enum class Decay { weights, all };

// Parameters with settings of their own. `Decay` still says which of them decay. An lr of 0.01 for the body and 0.1
// for the head: SGD(std::vector<ParameterGroup>{{body}, {.parameters = head, .lr_scale = 10}}, {.lr = 0.01}).
struct ParameterGroup {
  std::vector<Parameter> parameters;
  double lr_scale = 1;       // this group's lr is the optimizer's lr, whatever a schedule makes of it, times this
  double weight_decay = -1;  // < 0: the optimizer's
};

// Holds handles to its parameters; those without a gradient are skipped by step(), as in PyTorch. After the
// first step it allocates nothing. Throws ValueError for no parameters, one twice, one that is no floating
// leaf, or settings out of range (naming the value).
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  void zero_grad();
  // All or nothing. Throws OutOfMemory in the first step, and ValueError for a gradient that is not of its
  // parameter's shape, dtype and device, as after a change of the model between backward and step.
  void step();
  // As step(), at the rates[at] of float64 [K] on the parameters' device instead of lr(): a compiled step reads it anew
  // in each replay, and may be several steps. Throws ShapeError, ValueError and DeviceError too.
  void step(const Tensor& rates, int64_t at);
  double lr() const { return lr_; }
  void set_lr(double lr);  // finite, >= 0
  int64_t steps() const;   // that step() took
  // "SGD(lr 0.1, momentum 0.9, weight decay 0.0001 on weights)": what differs from plain.
  virtual std::string to_string() const = 0;

 protected:
  // One parameter and what the optimizer keeps for it.
  struct Slot {
    std::string name;
    Tensor parameter;
    double lr_scale, weight_decay;
    Tensor state1, state2;  // empty until the first step, or never used
    Tensor steps{};         // int64, see kernels.h: a compiled step reads it anew each time
  };
  // Slots that move together, of one dtype on one device: what a kernel call is made of.
  struct Moved {
    In rate;
    Ins g, hyper, steps;
    InOuts p, state1, state2;
  };
  // `states`: how many tensors like the parameter it keeps for each, 0 to 2.
  Optimizer(const char* name, const std::vector<ParameterGroup>& groups, double lr, double weight_decay, Decay decay,
            int states);

  // Launches the kernel.
  virtual void update(const Moved& moved) = 0;
  // The kernel's hyper for a slot.
  virtual std::array<double, 5> hyper(const Slot& slot) const = 0;
  // "lr 0.1", and ", weight decay 0.1 on weights" if there is any.
  std::string lr_text() const;
  std::string decay_text() const;

 private:
  // For the parameters of one device: float64 [slots, 5] and [1].
  struct Settings {
    Device device;
    Tensor hypers, lr;
  };
  // `rate` is null: lr().
  void move(const View& rate);
  void check_gradient(const Slot& slot, const Tensor& grad) const;
  void prepare(Slot& slot);
  const Settings& settings_of(Device device) const;
  const char* name_;
  std::vector<Slot> slots_;
  double lr_, weight_decay_;
  Decay decay_;
  int states_;
  Tensor steps_;  // int64
  std::vector<Settings> settings_;
};

struct SGDOptions {
  double lr = 0.01, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false;  // needs momentum > 0 and dampening 0
  Decay decay = Decay::weights;
};
// v = momentum v + (1 - dampening) g (v = g at first), p -= lr v, as torch.optim.SGD.
class SGD : public Optimizer {
 public:
  SGD(std::vector<Parameter> parameters, SGDOptions options = {});
  SGD(const std::vector<ParameterGroup>& groups, SGDOptions options = {});
  std::string to_string() const override;

 protected:
  void update(const Moved& moved) override;
  std::array<double, 5> hyper(const Slot& slot) const override;

 private:
  SGDOptions options_;
};

struct AdamOptions {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0;
  Decay decay = Decay::weights;
};
// Kingma and Ba 2015; weight decay is added to the gradient, as torch.optim.Adam.
class Adam : public Optimizer {
 public:
  Adam(std::vector<Parameter> parameters, AdamOptions options = {});
  Adam(const std::vector<ParameterGroup>& groups, AdamOptions options = {});
  std::string to_string() const override;

 protected:
  Adam(const char* name, const std::vector<ParameterGroup>& groups, AdamOptions options, bool decoupled);
  void update(const Moved& moved) override;
  std::array<double, 5> hyper(const Slot& slot) const override;

 private:
  AdamOptions options_;
  const char* name_;
  bool decoupled_;
};

struct AdamWOptions {
  double lr = 1e-3, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, weight_decay = 0.01;
  Decay decay = Decay::weights;
};
// Loshchilov and Hutter 2019: weight decay is taken off the parameter itself, as torch.optim.AdamW.
class AdamW : public Adam {
 public:
  AdamW(std::vector<Parameter> parameters, AdamWOptions options = {});
  AdamW(const std::vector<ParameterGroup>& groups, AdamWOptions options = {});
};

// Scales all gradients so that their joint 2-norm is at most max_norm; returns the norm before (NaN or infinite
// if a gradient is, and then the gradients become so too), float64 of one element. As torch.nn.utils.clip_grad_norm_.
// Throws ValueError unless max_norm > 0 and all gradients are on one device.
Tensor clip_grad_norm(const std::vector<Parameter>& parameters, double max_norm);

}  // namespace tandem
