#include "tandem/layers/recalibrate.h"

#include <fmt/format.h>

#include <cmath>

#include "tandem/core/autograd.h"
#include "tandem/core/error.h"
#include "tandem/layers/batch_norm.h"

namespace tandem {
namespace {

std::vector<double> values_of(const Tensor& x) { return x.to(Dtype::float64).to_vector<double>(); }

}  // namespace

// While it lives the model is in eval mode and its batch norms gather what they see.
struct Recalibration {
  struct Part {
    BatchNorm* norm;
    Moments seen{};
  };
  std::vector<std::pair<Module*, bool>> modes;  // each module before those below it
  std::vector<Part> parts;

  explicit Recalibration(Module& model) {
    visit(model);
    model.eval();
    for (Part& part : parts) part.norm->gather_ = &part.seen;
  }
  ~Recalibration() {
    for (Part& part : parts) part.norm->gather_ = nullptr;
    for (const auto& [module, mode] : modes) module->train(mode);
  }

  void visit(Module& module) {
    modes.emplace_back(&module, module.is_training());
    auto* norm = dynamic_cast<BatchNorm*>(&module);
    if (norm && norm->running_mean.defined() && !norm->is_frozen()) parts.push_back({norm});
    for (const auto& [name, child] : module.children()) visit(*child);
  }

  void finish(int64_t batches) {
    for (const Part& part : parts) {
      if (part.seen.count == 0) {
        throw ValueError(fmt::format("recalibrate: expected data in every batch norm, {} saw none", part.norm->name()));
      }
    }
    for (auto& [norm, seen] : parts) {
      const bool unbiased = norm->options().unbiased_running_var && seen.count > 1;
      const Shape channels = norm->running_mean.shape();
      const std::vector<double> mean = values_of(norm->running_mean), var = values_of(norm->running_var);
      int64_t kept = 0;
      for (size_t c = 0; c < mean.size(); ++c) {
        seen.m2[c] /= unbiased ? seen.count - 1 : seen.count;
        if (std::isfinite(seen.mean[c]) && std::isfinite(seen.m2[c])) continue;
        seen.mean[c] = mean[c];
        seen.m2[c] = var[c];
        ++kept;
      }
      norm->running_mean.copy_from(Tensor::from(seen.mean, channels));
      norm->running_var.copy_from(Tensor::from(seen.m2, channels));
      norm->num_batches_tracked.fill(static_cast<double>(batches));
      if (kept == 0) continue;
      warn(fmt::format(
          "{}: the mean or variance of {} of {} channels is not finite over the data; the running ones were "
          "left as they were",
          norm->label("BatchNorm"), kept, mean.size()));
    }
  }
};

void recalibrate(Module& model, int64_t batches, const std::function<Tensor(int64_t)>& batch) {
  const NoGrad no_grad;
  Recalibration recalibration(model);
  if (batches < 1) throw ValueError(fmt::format("recalibrate: expected at least 1 batch, got {}", batches));
  if (recalibration.parts.empty()) {
    throw ValueError("recalibrate: expected a batch norm with running statistics to set, found none");
  }
  for (int64_t i = 0; i < batches; ++i) model(batch(i));
  recalibration.finish(batches);
}

}  // namespace tandem
