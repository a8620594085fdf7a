// Training and evaluating a model, without printing or writing anything: `train` and `compare` both stand on
// this. Everything here may run in several threads at once, on different models.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "exit_code.h"
#include "tandem/data/data_loader.h"
#include "tandem/layers/sequential.h"
#include "tandem/optim/optimizer.h"

namespace tandem {

// What to train, on what, and how: the flags of `tandem train`, with their defaults.
struct TrainSettings {
  // The network: a named model (mlp, w1, w2, w3, lenet), or "custom" and the builder's text; with or without
  // batch norm.
  std::string model = "w2";
  std::string layers;
  bool bn = true;

  std::string dataset = "auto";  // auto: MNIST if it is found, else the built-in digits
  std::string data_dir;          // empty: $TANDEM_DATA or the cache
  int64_t shift = 0;             // random shifts of training images by up to this many pixels

  std::optional<int64_t> epochs;      // unset: 3, or as many as max_steps takes
  int64_t max_steps = 0;              // > 0: stop there, even within an epoch
  std::optional<int64_t> batch_size;  // unset: the model's own (WORKLOADS: w1 60, the others 128)
  std::string last_batch = "auto";    // auto: drop, but merge a last batch of one image, which says nothing of a spread

  std::string optimizer = "sgd";  // sgd, adam, adamw
  std::optional<double> lr;       // unset: the model's own with SGD, 0.001 with Adam and AdamW
  double momentum = 0.9;
  bool nesterov = false;
  std::optional<double> weight_decay;  // unset: 0.01 with AdamW, else 0
  std::string decay = "weights";       // which parameters weight decay reaches: weights, all
  double clip = 0;                     // > 0: the largest norm of all gradients together
  double label_smoothing = 0;
  std::string schedule = "cosine";  // constant, step, cosine, one-cycle
  int64_t warmup = 0;               // steps
  int64_t step_size = 0;            // step schedule: steps between drops; 0: a third of all
  double gamma = 0.1;               // step schedule: factor of a drop

  std::string from, from_sha256;  // the model file whose values it starts from, if any
  uint64_t seed = 1;
  int64_t eval_every = 0;  // steps between validations; 0: once an epoch. The last step always has one
  int64_t eval_from = 0;   // no validation before this step but the last one and that of an interrupt
  double target = 0;       // > 0: stop at the validation whose accuracy is at least so many percent
  int64_t log_every = 10;  // steps between records of the training loss

  std::string device = "cpu";
  int64_t threads = 0;  // 0: the cores this process may use
  std::string dtype = "float32";
  std::string precision = "fp32";  // of a GPU's float32 products: fp32, tf32, bf16

  bool eager = false;      // run steps op by op instead of replaying their plan: the same values, slower
  int64_t check_plan = 0;  // > 0: every so many steps run the eager step too and compare all bytes
};

// Fills what is unset: layers, batch_size, lr, weight_decay, epochs; takes the batch norms out of layers if bn is off,
// and turns bn off if there are none. Throws ValueError, and UsageError for flags that contradict each other.
TrainSettings resolve(TrainSettings settings);

struct Splits {
  Dataset train, validation, test;  // validation: the last 5,000 training images; a twelfth of fewer than 60,000
  std::string notice;               // a sentence for the user when the built-in digits stand in; else empty
};
// On the CPU. Throws DataError when the data set that was named is missing or corrupt.
Splits load_data(const TrainSettings& settings);
// On the settings' device, sharing the images that the splits share. Throws DeviceError, OutOfMemory.
Splits to_device(const Splits& data, const TrainSettings& settings);

Dtype parse_dtype(const std::string& name);  // "float32" or "float64"
int64_t count_values(const std::vector<Parameter>& parameters);

// resolve() and what depends on the data and the machine: the data set's name, epochs, eval_every, step_size, threads.
TrainSettings resolve(TrainSettings settings, const Dataset& train);

// A fresh model for these images and classes, on the settings' device. Throws ValueError, ShapeError.
std::unique_ptr<Sequential> make_model(const TrainSettings& settings, const Dataset& data);

// As the settings (resolved) have it. Throws ValueError.
std::unique_ptr<Optimizer> make_optimizer(Module& model, const TrainSettings& settings);

// The batches of training, in an order given by the seed alone.
DataLoader make_loader(const Dataset& data, const TrainSettings& settings);
int64_t total_steps(const DataLoader& loader, const TrainSettings& settings);

// How a model does on a data set.
struct Evaluation {
  double loss = 0, accuracy = 0;  // mean cross-entropy in nats; 0..1
  int64_t correct = 0, count = 0;
  int64_t classes = 0;
  std::vector<int64_t> confusion;  // [classes, classes]: row = true label, column = answer
};
// In eval mode, without gradients; the model's mode is restored, no random stream moves, and the result does
// not depend on when or how often it is called. Throws ShapeError if the images do not fit.
Evaluation evaluate(Module& model, const Dataset& data, const TrainSettings& settings);

struct StepRecord {
  int64_t step = 0;     // steps done, this one included
  double epoch = 0;     // passes over the training data, as a fraction
  double loss = 0;      // of this batch, before its update
  double accuracy = 0;  // of this batch
  double lr = 0;
};
struct ValidationRecord {
  int64_t step = 0;
  double epoch = 0;
  double lr = 0;
  Evaluation validation;
};

// Watches a training run. Called in the thread that trains.
struct TrainObserver {
  virtual ~TrainObserver() = default;
  virtual void on_start(int64_t /*total_steps*/) {}
  virtual void on_step(const StepRecord&) {}
  virtual void on_validation(const ValidationRecord&) {}
  virtual bool should_stop() { return false; }  // asked after every step; on a GPU, after some
};

struct TrainResult {
  bool interrupted = false;  // should_stop() said so
  bool reached = false;      // the last validation reached the target
  bool diverged = false;     // a loss was infinite or not a number; `message` says which and when
  std::string message;
  // The device failed (DeviceError, OutOfMemory). The model's own values may be lost; `model` has those of the last
  // validation, or of the last step if memory was too small for the first.
  std::exception_ptr failure;
  int64_t steps = 0;       // done
  StateDict model;         // on the CPU
  int64_t model_step = 0;  // the step whose values these are: `steps`, unless it diverged or failed
  double epochs = 0;
  double seconds = 0;                // training and validation
  std::optional<double> train_loss;  // mean over the steps of the last epoch; none if there were no steps
  Evaluation validation;             // the last one; count is 0 if there was none
};

// Throws what train() would throw before its first step is done: UsageError, ValueError or ShapeError for settings
// that do not fit each other, the data or the model (a batch too small for a batch norm). Changes nothing.
void check_training(const Module& model, const Splits& data, const TrainSettings& settings);

// Trains `model` in place; testing it is left to evaluate(model, data.test, settings). When a loss is not finite,
// training stops there and the model gets back the values of its last finite validation (or of its start). A run that
// is interrupted is validated once more, so that what it leaves is known to be finite. The validation that reaches the
// target ends training. Throws DeviceError or OutOfMemory if no values could be kept.
TrainResult train(Module& model, const Splits& data, const TrainSettings& settings, TrainObserver& observer);

}  // namespace tandem
