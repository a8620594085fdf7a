#include <fmt/format.h>

#include <cmath>

#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"
#include "tandem/optim/optimizer.h"

namespace tandem {

SGD::SGD(std::vector<Parameter> parameters, SGDOptions options)
    : SGD(std::vector<ParameterGroup>{{std::move(parameters)}}, options) {}

SGD::SGD(const std::vector<ParameterGroup>& groups, SGDOptions options)
    : Optimizer("SGD", groups, options.lr, options.weight_decay, options.decay, options.momentum != 0 ? 1 : 0),
      options_(options) {
  if (!(options.momentum >= 0) || !std::isfinite(options.momentum)) {
    throw ValueError(fmt::format("SGD: expected a finite momentum >= 0, got {}", options.momentum));
  }
  if (!std::isfinite(options.dampening)) {
    throw ValueError(fmt::format("SGD: expected a finite dampening, got {}", options.dampening));
  }
  if (options.nesterov && (options.momentum == 0 || options.dampening != 0)) {
    throw ValueError(fmt::format("SGD: nesterov needs momentum > 0 and dampening 0, got {} and {}", options.momentum,
                                 options.dampening));
  }
}

void SGD::update(const Moved& m) { launch(SgdStep{m.rate, m.g, m.hyper, m.steps, m.p, m.state1, options_.nesterov}); }

std::array<double, 5> SGD::hyper(const Slot& slot) const {
  return {slot.lr_scale, options_.momentum, slot.weight_decay, options_.dampening};
}

std::string SGD::to_string() const {
  std::string text = "SGD(" + lr_text();
  if (options_.momentum != 0) {
    text += fmt::format(", {}momentum {}", options_.nesterov ? "Nesterov " : "", options_.momentum);
  }
  if (options_.dampening != 0) text += fmt::format(", dampening {}", options_.dampening);
  return text + decay_text() + ")";
}

}  // namespace tandem
