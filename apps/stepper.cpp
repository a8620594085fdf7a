#include "stepper.h"

#include "tandem/core/ops.h"

namespace tandem {

WithPrecision::WithPrecision(const TrainSettings& s) : before_(cuda::math()) {
  cuda::set_math(s.precision == "tf32" ? Math::tf32 : s.precision == "bf16" ? Math::bf16 : Math::fp32);
}
WithPrecision::~WithPrecision() { cuda::set_math(before_); }

std::vector<Tensor> training_step(Module& model, Optimizer& optimizer, const TrainSettings& settings,
                                  const std::vector<Tensor>& batch) {
  optimizer.zero_grad();
  const Tensor logits = model(batch[0]);
  const Tensor loss = cross_entropy(logits, batch[1], {.label_smoothing = settings.label_smoothing});
  loss.backward();
  if (settings.clip > 0) clip_grad_norm(model.parameters(), settings.clip);
  optimizer.step();
  return {loss, logits};
}

namespace {

// Between looks at a GPU's log: each costs the time that queued steps would have covered.
constexpr int64_t kStepsAhead = 100;

}  // namespace

Stepper::Stepper(Module& model, Optimizer& optimizer, DataLoader& loader, const TrainSettings& settings)
    : model_(model),
      optimizer_(optimizer),
      loader_(loader),
      settings_(settings),
      log_(settings.device == "cpu" ? 1 : kStepsAhead, Device::parse(settings.device)),
      compiled_([this](const std::vector<Tensor>& rows) { return run(rows); },
                {.eager = settings.eager, .keep_gradients = false, .check_every = settings.check_plan}) {}

std::vector<Tensor> Stepper::run(const std::vector<Tensor>& rows) {
  const Batch batch = loader_.gather(rows[0], rows.size() > 1 ? rows[1] : Tensor());
  const WithPrecision precision(settings_);
  const std::vector<Tensor> result = training_step(model_, optimizer_, settings_, {batch.x, batch.y});
  log_.note(result[0], result[1], batch.y);
  return {};
}

void Stepper::step(int64_t epoch, int64_t index) {
  const DataLoader::Rows taken = loader_.rows(epoch, index);
  images_ = static_cast<int64_t>(taken.rows.size());
  Picked& picked = picked_[images_];
  if (!picked.rows.defined()) {
    const TensorOptions options{Dtype::int32, Device::parse(settings_.device)};
    picked.rows = empty({images_}, options);
    if (!taken.shifts.empty()) picked.shifts = empty({images_, 2}, options);
  }
  std::vector<Tensor> inputs = {picked.rows};
  picked.rows.copy_from(Tensor::from(taken.rows, picked.rows.shape()));
  if (picked.shifts.defined()) {
    picked.shifts.copy_from(Tensor::from(taken.shifts, picked.shifts.shape()));
    inputs.push_back(picked.shifts);
  }
  compiled_(inputs);
}

int64_t Stepper::images() const { return images_; }

}  // namespace tandem
