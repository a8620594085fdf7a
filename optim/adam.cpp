#include <fmt/format.h>

#include <cmath>

#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"
#include "tandem/optim/optimizer.h"

namespace tandem {

Adam::Adam(std::vector<Parameter> parameters, AdamOptions options)
    : Adam(std::vector<ParameterGroup>{{std::move(parameters)}}, options) {}

Adam::Adam(const std::vector<ParameterGroup>& groups, AdamOptions options) : Adam("Adam", groups, options, false) {}

Adam::Adam(const char* name, const std::vector<ParameterGroup>& groups, AdamOptions options, bool decoupled)
    : Optimizer(name, groups, options.lr, options.weight_decay, options.decay, 2),
      options_(options),
      name_(name),
      decoupled_(decoupled) {
  if (!(options.beta1 >= 0 && options.beta1 < 1) || !(options.beta2 >= 0 && options.beta2 < 1)) {
    throw ValueError(
        fmt::format("{}: expected beta1 and beta2 in [0, 1), got {} and {}", name, options.beta1, options.beta2));
  }
  if (!(options.eps >= 0) || !std::isfinite(options.eps)) {
    throw ValueError(fmt::format("{}: expected a finite eps >= 0, got {}", name, options.eps));
  }
}

void Adam::update(const Moved& m) {
  launch(AdamStep{m.rate, m.g, m.hyper, m.steps, m.p, m.state1, m.state2, decoupled_});
}

std::array<double, 5> Adam::hyper(const Slot& slot) const {
  return {slot.lr_scale, options_.beta1, options_.beta2, options_.eps, slot.weight_decay};
}

std::string Adam::to_string() const {
  std::string text = fmt::format("{}({}", name_, lr_text());
  const AdamOptions plain;
  if (options_.beta1 != plain.beta1 || options_.beta2 != plain.beta2) {
    text += fmt::format(", betas {} and {}", options_.beta1, options_.beta2);
  }
  if (options_.eps != plain.eps) text += fmt::format(", eps {}", options_.eps);
  return text + decay_text() + ")";
}

AdamW::AdamW(std::vector<Parameter> parameters, AdamWOptions options)
    : AdamW(std::vector<ParameterGroup>{{std::move(parameters)}}, options) {}

AdamW::AdamW(const std::vector<ParameterGroup>& groups, AdamWOptions o)
    : Adam("AdamW", groups, {o.lr, o.beta1, o.beta2, o.eps, o.weight_decay, o.decay}, true) {}

}  // namespace tandem
