#include "stepper.h"

#include <algorithm>
#include <iterator>

#include "tandem/core/ops.h"

namespace tandem {

WithPrecision::WithPrecision(const TrainSettings& s) : before_(cuda::math()) {
  cuda::set_math(s.precision == "tf32" ? Math::tf32 : s.precision == "bf16" ? Math::bf16 : Math::fp32);
}
WithPrecision::~WithPrecision() { cuda::set_math(before_); }

std::vector<Tensor> training_step(Module& model, Optimizer& optimizer, const TrainSettings& settings,
                                  const std::vector<Tensor>& batch, const Tensor& rates, int64_t at) {
  optimizer.zero_grad();
  const Tensor logits = model(batch[0]);
  const Tensor loss = cross_entropy(logits, batch[1], {.label_smoothing = settings.label_smoothing});
  loss.backward();
  if (settings.clip > 0) clip_grad_norm(model.parameters(), settings.clip);
  rates.defined() ? optimizer.step(rates, at) : optimizer.step();
  return {loss, logits};
}

namespace {

// On a GPU: steps of one graph, as launching one costs the host about what a small step costs the GPU; and steps
// between looks at the log, which take the host some time too.
constexpr int64_t kTogether = 8, kStepsAhead = 12 * kTogether;

}  // namespace

Stepper::Stepper(Module& model, Optimizer& optimizer, DataLoader& loader, const TrainSettings& settings)
    : model_(model),
      optimizer_(optimizer),
      loader_(loader),
      settings_(settings),
      device_(Device::parse(settings.device)),
      together_(device_.kind == Device::Kind::cuda ? kTogether : 1),
      log_(device_.kind == Device::Kind::cuda ? kStepsAhead : 1, device_),
      compiled_([this](const std::vector<Tensor>& inputs) { return steps(inputs); },
                {.eager = settings.eager,
                 .keep_gradients = false,
                 .check_every = settings.check_plan > 0 ? std::max<int64_t>(1, settings.check_plan / together_) : 0}) {}

std::vector<Tensor> Stepper::steps(const std::vector<Tensor>& inputs) {
  const Tensor rates = inputs[0], rows = inputs[1], shifts = inputs.size() > 2 ? inputs[2] : Tensor();
  const int64_t images = rows.numel() / rates.numel();
  const WithPrecision precision(settings_);
  for (int64_t i = 0; i < rates.numel(); ++i) {
    const Batch batch = loader_.gather(rows, shifts, i * images, (i + 1) * images);
    const std::vector<Tensor> result = training_step(model_, optimizer_, settings_, {batch.x, batch.y}, rates, i);
    log_.note(result[0], result[1], batch.y);
  }
  return {};
}

void Stepper::run(int64_t first, const std::vector<double>& rates) {
  std::span<const double> left(rates);
  const auto images = [&](int64_t step) { return loader_.rows_of_batch(step % loader_.batches()); };
  while (!left.empty()) {
    int64_t n = 1;
    while (n < together_ && n < std::ssize(left) && images(first + n) == images(first)) ++n;
    if (n < together_) n = 1;  // each length is a plan of its own
    queue(first, left.subspan(0, static_cast<size_t>(n)));
    left = left.subspan(static_cast<size_t>(n));
    first += n;
  }
  log_.mark();
  const int64_t next_epoch = (first + capacity() - 1) / loader_.batches();
  if (together_ > 1) loader_.rows(next_epoch, 0);  // draws its order while the GPU is busy
}

void Stepper::queue(int64_t first, std::span<const double> rates) {
  std::vector<int32_t> rows, shifts;
  for (int64_t step = first; step < first + std::ssize(rates); ++step) {
    const DataLoader::Rows taken = loader_.rows(step / loader_.batches(), step % loader_.batches());
    rows.insert(rows.end(), taken.rows.begin(), taken.rows.end());
    shifts.insert(shifts.end(), taken.shifts.begin(), taken.shifts.end());
  }
  Inputs& in = inputs_of(std::ssize(rates), std::ssize(rows));
  in.rates.copy_from(Tensor::from(rates, in.rates.shape()));
  in.rows.copy_from(Tensor::from(rows, in.rows.shape()));
  if (shifts.empty()) {
    compiled_({in.rates, in.rows});
  } else {
    in.shifts.copy_from(Tensor::from(shifts, in.shifts.shape()));
    compiled_({in.rates, in.rows, in.shifts});
  }
}

Stepper::Inputs& Stepper::inputs_of(int64_t steps, int64_t images) {
  Inputs& in = inputs_[{steps, images}];
  if (!in.rows.defined()) {
    in.rates = empty({steps}, {Dtype::float64, device_});
    in.rows = empty({images}, {Dtype::int32, device_});
    if (settings_.shift > 0) in.shifts = empty({images, 2}, {Dtype::int32, device_});
  }
  return in;
}

}  // namespace tandem
