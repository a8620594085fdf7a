#include "training.h"

#include "helpers.h"
#include "tandem/core/autograd.h"
#include "tandem/core/ops.h"
#include "tandem/data/data_loader.h"
#include "tandem/layers/build.h"
#include "tandem/optim/optimizer.h"
#include "tandem/optim/schedule.h"

namespace tandem::test {

Trained train(const Dataset& data, const TrainOptions& options) {
  const ModelText text = options.layers.empty() ? model_text(options.model, options.batch_norm)
                                                : ModelText{options.layers, Init::he_normal()};
  Trained run{build(text.layers, data.sample_shape(), {.seed = options.seed, .init = text.init}), {}};
  DataLoader loader(data, {.batch_size = options.batch_size,
                           .seed = options.seed,
                           .last_batch = LastBatch::drop,
                           .prefetch = options.prefetch});
  SGD sgd(run.model->parameters(), {.lr = options.lr, .momentum = 0.9});
  const Schedule schedule{.kind = Schedule::Kind::cosine, .total_steps = options.epochs * loader.batches()};
  int64_t step = 0;
  for (int64_t epoch = 0; epoch < options.epochs; ++epoch) {
    for (const auto& [x, y] : loader) {
      sgd.set_lr(options.lr * schedule.factor(step++));
      sgd.zero_grad();
      const Tensor loss = cross_entropy((*run.model)(x), y);
      loss.backward();
      sgd.step();
      run.losses.push_back(loss.item());
      if (options.evaluate_every > 0 && step % options.evaluate_every == 0) accuracy(*run.model, data);
    }
  }
  return run;
}

double accuracy(Module& model, const Dataset& data) {
  const NoGrad no_grad;
  model.eval();
  int64_t correct = 0;
  for (const auto& [x, y] : DataLoader(data, {.batch_size = 500, .shuffle = false})) {
    const std::vector<int32_t> answers = argmax(model(x)), labels = y.to_vector<int32_t>();
    for (size_t i = 0; i < labels.size(); ++i) correct += answers[i] == labels[i];
  }
  model.train();
  return static_cast<double>(correct) / static_cast<double>(data.size());
}

void train_on_noise(Module& model, const Shape& batch, int steps) {
  SGD sgd(model.parameters(), {.lr = 0.1});
  for (int i = 0; i < steps; ++i) {
    sgd.zero_grad();
    const Tensor y = model(random(batch, static_cast<uint64_t>(i), model.parameters()[0].tensor.dtype(), -1, 3));
    sum(y * y).backward();
    clip_grad_norm(model.parameters(), 1);
    sgd.step();
  }
}

std::vector<uint8_t> state_bytes(Module& model) {
  std::vector<uint8_t> all;
  for (const auto& [name, tensor] : model.state_dict()) {
    const std::vector<uint8_t> one = bytes(tensor);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

}  // namespace tandem::test
