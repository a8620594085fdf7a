// Optimizers: move parameters against their gradients.
#pragma once

#include <string>
#include <vector>

#include "tandem/core/parameter.h"

namespace tandem {

// Which parameters weight decay reaches: those with role weight, or all (what PyTorch and Keras do).
enum class Decay { weights, all };

// Parameters with settings of their own; unset ones (NaN) are the optimizer's.
struct ParameterGroup {
  std::vector<Parameter> parameters;
  double lr_scale = 1;        // this group's lr is the optimizer's lr times this
  double weight_decay = -1;   // < 0: the optimizer's
};

// Holds handles to its parameters; those without a gradient are skipped by step(), as in PyTorch.
// Throws ValueError for no parameters, one twice, or settings out of range (naming the value).
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  void zero_grad();
  virtual void step() = 0;
  double lr() const { return lr_; }
  void set_lr(double lr);  // finite, >= 0
  int64_t steps() const { return steps_; }
  // "SGD(lr 0.1, momentum 0.9, weight decay 1e-4 on weights)".
  virtual std::string to_string() const = 0;

 protected:
  // One parameter and what the optimizer keeps for it.
  struct Slot {
    Tensor parameter;
    double lr_scale, weight_decay;
    Tensor state1, state2;  // empty until the first step
    Tensor hyper;           // float64, see kernels.h
    int64_t steps = 0;
  };
  Optimizer(std::vector<ParameterGroup> groups, double lr, double weight_decay, Decay decay);

  std::vector<Slot> slots_;
  double lr_;
  int64_t steps_ = 0;
};

struct SGDOptions {
  double lr = 0.01, momentum = 0, dampening = 0, weight_decay = 0;
  bool nesterov = false;
  Decay decay = Decay::weights;
};
// v = momentum v + (1 - dampening) g, p -= lr v, as torch.optim.SGD.
class SGD : public Optimizer {
 public:
  SGD(std::vector<Parameter> parameters, SGDOptions options = {});
  SGD(std::vector<ParameterGroup> groups, SGDOptions options = {});
  void step() override;
  std::string to_string() const override;

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
  Adam(std::vector<ParameterGroup> groups, AdamOptions options = {});
  void step() override;
  std::string to_string() const override;

 protected:
  Adam(std::vector<ParameterGroup> groups, AdamOptions options, bool decoupled);

 private:
  AdamOptions options_;
  bool decoupled_ = false;
};

// Loshchilov and Hutter 2019: weight decay is taken off the parameter itself.
class AdamW : public Adam {
 public:
  AdamW(std::vector<Parameter> parameters, AdamOptions options = {.weight_decay = 0.01});
  AdamW(std::vector<ParameterGroup> groups, AdamOptions options = {.weight_decay = 0.01});
};

// Scales all gradients so that their joint 2-norm is at most max_norm; returns the norm before.
// As torch.nn.utils.clip_grad_norm_. Throws ValueError unless max_norm > 0.
double clip_grad_norm(const std::vector<Parameter>& parameters, double max_norm);

}  // namespace tandem
