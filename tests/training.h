// A plain training loop made of the library's parts, for tests of what training does.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "tandem/data/dataset.h"
#include "tandem/layers/sequential.h"

namespace tandem::test {

// A reference network with SGD, momentum 0.9, and cosine decay over all steps; the last batch is dropped.
struct TrainOptions {
  std::string model = "w2";
  bool batch_norm = true;
  std::string layers{};  // if given, of a network of one's own instead
  uint64_t seed = 1;  // of the weights and of the batches
  int64_t epochs = 1, batch_size = 128;
  double lr = 0.1;
  bool prefetch = false;
  int64_t evaluate_every = 0;  // steps between evaluations on the training data; 0: none
};

struct Trained {
  std::unique_ptr<Sequential> model;
  std::vector<double> losses;  // of each step
};

Trained train(const Dataset& data, const TrainOptions& options);

// The share of right answers, in eval mode and without gradients.
double accuracy(Module& model, const Dataset& data);

// A few steps on random batches of this shape, so that parameters and statistics are anything but what they start from.
void train_on_noise(Module& model, const Shape& batch, int steps = 5);

// Every parameter and buffer, as bytes.
std::vector<uint8_t> state_bytes(Module& model);

}  // namespace tandem::test
