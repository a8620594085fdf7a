// tandem train: one network, one run directory.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <exception>
#include <future>
#include <nlohmann/json.hpp>
#include <regex>

#include "clock.h"
#include "commands.h"
#include "metrics.h"
#include "model_file.h"
#include "options.h"
#include "progress.h"
#include "run_dir.h"
#include "signals.h"
#include "tandem/core/file.h"
#include "tandem/core/hash.h"
#include "tandem/core/text.h"
#include "tandem/layers/build.h"
#include "terminal.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  TrainSettings settings;
  OutputOptions output;
  std::string preset, out, config;
  bool force = false, dry_run = false;
  bool network_given = false;  // by --model, --layers or --bn
};

// What was tried for fast99 stands in bench/README.md.
const std::vector<Preset> kPresets = {
    {"fast99",
     "99 % of MNIST's test images in seconds",
     {{"--dataset", "mnist"},
      {"--layers",
       "conv:32:k=5:s=2:p=1,bn,relu,conv:32:s=2,bn,relu,conv:64,bn,relu,flatten,dense:128,bn,relu,dense:10"},
      {"--shift", "1"},
      {"--max-steps", "1300"},
      {"--batch-size", "64"},
      {"--optimizer", "adamw"},
      {"--lr", "0.01"},
      {"--schedule", "one-cycle"},
      {"--eval-every", "50"},
      {"--eval-from", "1100"},
      {"--target", "99.1"}}},
};

std::string parameter_line(Module& model, const TrainSettings& s, const Dataset& data) {
  const int64_t n = count_values(model.parameters());
  if (!s.bn) return fmt::format("{} without batch norm", group_digits(n));
  // Only to be counted, so its weights need not be drawn.
  const auto plain = build(without_batch_norm(s.layers), data.sample_shape(), {.init = Init::zeros()});
  return fmt::format("{} with batch norm, {} without\n            (no bias before a batch norm: its gradient is 0)",
                     group_digits(n), group_digits(count_values(plain->parameters())));
}

std::string decay_line(const std::vector<Parameter>& parameters, const TrainSettings& s) {
  if (*s.weight_decay == 0) return "no weight decay";
  int64_t decayed = 0;
  for (const Parameter& p : parameters) decayed += s.decay == "all" || p.role == Role::weight;
  return fmt::format("weight decay {} on {} of {} tensors\n            ({})", *s.weight_decay, decayed,
                     parameters.size(), s.decay == "all" ? "all" : "weights, not biases and batch norm");
}

// What will be trained, how, on what.
std::string describe(Module& model, const TrainSettings& s, const Splits& data) {
  const DataLoader loader = make_loader(data.train, s);
  const int64_t steps = total_steps(loader, s);
  std::string out = summary(model, data.train.sample_shape());
  if (!out.ends_with("\n")) out += "\n";
  out += fmt::format("parameters  {}\n", parameter_line(model, s, data.train));
  out += fmt::format("optimizer   {}, learning rate {}, {}\n            {}\n", s.optimizer, *s.lr, s.schedule,
                     decay_line(model.parameters(), s));
  out += fmt::format("data        {}: {} to train, {} to validate, {} to test\n", data.train.name,
                     group_digits(data.train.size()), group_digits(data.validation.size()),
                     group_digits(data.test.size()));
  out += fmt::format("steps       {} of {} images ({} an epoch), seed {}\n", group_digits(steps), *s.batch_size,
                     group_digits(loader.batches()), s.seed);
  if (s.device != "cpu") out += fmt::format("device      {}, {} in {}\n", s.device, s.dtype, s.precision);
  if (s.target > 0) {
    out += fmt::format(
        "target      stops when the validation accuracy is at least {} %,\n            looked at every {} steps{}\n",
        s.target, group_digits(s.eval_every), s.eval_from > 0 ? " from step " + group_digits(s.eval_from) : "");
  }
  return out;
}

// With --from, the network is the file's; flags that name another one are a contradiction.
void take_network(TrainSettings& s, const ModelFile& file, bool network_given) {
  const std::string layers = file.model->text();
  if (network_given) {
    const std::string asked = build(resolve(s).layers, file.input)->text();
    // How weights start does not matter to one that has them.
    const auto without_init = [](const std::string& text) {
      return std::regex_replace(text, std::regex(":init=[a-z_]+(\\([^)]*\\))?"), "");
    };
    if (without_init(asked) != without_init(layers)) {
      throw UsageError(
          fmt::format("--from {}: expected the network asked for, \"{}\", the file holds \"{}\"; leave out "
                      "--model, --layers and --bn",
                      s.from, asked, layers));
    }
  }
  s.model = file.network;
  s.bn = true;
  s.layers = layers;
  const std::vector<uint8_t> bytes = read_file(file.path);
  s.from_sha256 = sha256(reinterpret_cast<const char*>(bytes.data()), bytes.size());
}

// Logs, shows progress and listens for signals. A log that cannot be written ends the run as a signal does.
class Watcher : public TrainObserver {
 public:
  Watcher(RunDir& dir, const TrainSettings& settings) : dir_(dir), log_(dir.path(), settings.log_every) {}

  void on_start(int64_t steps) override { progress_ = std::make_unique<Progress>(steps); }
  void on_step(const StepRecord& r) override {
    dir_.keep();
    log([&] { log_.step(r); });
    smooth_ = r.step == 1 ? r.loss : 0.95 * smooth_ + 0.05 * r.loss;
    progress_->update(r.step, fmt::format("loss {:.4f}", smooth_));
  }
  void on_validation(const ValidationRecord& r) override {
    log([&] { log_.validation(r); });
    notice(fmt::format("epoch {:<6.4g} step {:<7} loss {:.4f}   validation loss {:.4f}  accuracy {:.2f} %", r.epoch,
                       r.step, smooth_, r.validation.loss, 100 * r.validation.accuracy));
  }
  bool should_stop() override { return signals_.stopped() || failure_; }

  void on_end() {
    progress_.reset();
    log([&] { log_.flush(); });
  }
  void on_test(const TrainResult& result, const Evaluation& test) {
    log([&] { log_.test(result, test); });
  }
  int signal() const { return signals_.signal(); }
  void rethrow() const {
    if (failure_) std::rethrow_exception(failure_);
  }

 private:
  // Nothing is logged after an error: what is there stays without a gap.
  template <class Write>
  void log(Write write) {
    if (failure_) return;
    try {
      write();
    } catch (const IoError&) {
      failure_ = std::current_exception();
    }
  }

  RunDir& dir_;
  MetricsLog log_;
  std::exception_ptr failure_;
  StopOnSignal signals_;
  std::unique_ptr<Progress> progress_;
  double smooth_ = 0;  // the loss, averaged over about 20 steps, for the eye
};

Json config_json(const TrainSettings& s, const std::string& preset) {
  Json config = to_json(s);
  config["preset"] = preset;
  config["eval_from"] = s.eval_from;
  config["target"] = s.target;
  return config;
}

// `seconds`: from the start of the process until training stopped.
std::string target_line(const TrainResult& r, const TrainSettings& s, double seconds) {
  if (s.target == 0) return "";
  const std::string accuracy = fmt::format("{:.2f} %", 100 * r.validation.accuracy);
  if (!r.reached) return fmt::format("target: {} % not reached, the validation accuracy is {}\n", s.target, accuracy);
  return fmt::format("target: validation accuracy {} after {} steps, {:.2f} s after the program's start\n", accuracy,
                     group_digits(r.steps), seconds);
}

std::string sentence_of(const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const std::exception& e) {
    return e.what();
  }
}

// Throws what ended the run, and says what it leaves.
[[noreturn]] void rethrow_with(const std::exception_ptr& failure, const std::string& kept) {
  try {
    std::rethrow_exception(failure);
  } catch (const OutOfMemory& e) {
    throw OutOfMemory(e.what() + kept);
  } catch (const DeviceError& e) {
    throw DeviceError(e.what() + kept);
  }
}

// Writes the model file of a run from values on the CPU: the device may be gone.
void save_state(const StateDict& state, const std::string& path, TrainSettings s, const Dataset& data) {
  s.device = "cpu";
  const auto model = make_model(s, data);
  model->load_state_dict(state);
  save_model(*model, path, s, data);
}

Json result_json(const TrainResult& r, double seconds_since_start, const Evaluation& test, Module& model,
                 const TrainSettings& s, const Splits& data) {
  const auto or_null = [](const Evaluation& e, double value) { return e.count > 0 ? Json(value) : Json(); };
  Json json = {{"tool", "tandem"},
               {"command", "train"},
               {"status", r.failure       ? "failed"
                          : r.diverged    ? "diverged"
                          : r.interrupted ? "interrupted"
                                          : "finished"},
               {"dataset", data.train.name},
               {"model", s.model},
               {"bn", s.bn},
               {"seed", s.seed},
               {"test_accuracy", or_null(test, test.accuracy)},
               {"test_loss", or_null(test, test.loss)},
               {"validation_accuracy", or_null(r.validation, r.validation.accuracy)},
               {"validation_loss", or_null(r.validation, r.validation.loss)},
               {"train_loss", r.train_loss ? Json(*r.train_loss) : Json()},
               {"steps", r.steps},
               {"model_step", r.model_step},
               {"epochs", r.epochs},
               {"seconds", r.seconds},
               {"seconds_since_start", seconds_since_start},
               {"target_reached", s.target > 0 ? Json(r.reached) : Json()},
               {"parameters", count_values(model.parameters())}};
  if (r.diverged) json["message"] = r.message;
  if (r.failure) json["message"] = sentence_of(r.failure);
  return json;
}

int run(Options options) {
  use_device(options.settings);
  std::optional<ModelFile> from;
  if (!options.settings.from.empty()) {
    from = open_model(options.settings.from);
    take_network(options.settings, *from, options.network_given);
  }
  const TrainSettings asked = resolve(options.settings);
  const Splits host = load_data(asked), data = to_device(host, asked);
  if (!data.notice.empty()) notice(data.notice);
  if (from) require_fit(*from, data.train);
  const TrainSettings s = resolve(asked, data.train);
  const auto model = make_model(s, data.train);
  if (from) model->load_state_dict(from->model->state_dict(), true, from->path);
  check_training(*model, data, s);
  if (options.dry_run) {
    const Json config = config_json(s, options.preset);
    options.output.json ? print_json(config) : print(describe(*model, s, data) + "settings    " + indented(config));
    return kOk;
  }

  RunDir dir(options.out, "train", run_label(s, data.train.name), options.force);
  notice(describe(*model, s, data) + fmt::format("run         {}\n", dir.path()));
  dir.write_json("config.json", config_json(s, options.preset));
  // Hashing the data takes a moment that training need not wait for.
  auto environment_written = std::async(std::launch::async, [&] { dir.write_json("env.json", environment(host)); });
  Watcher watcher(dir, s);
  TrainResult result = train(*model, data, s, watcher);
  const double seconds = seconds_since_process_start();
  dir.keep();
  watcher.on_end();
  if (result.interrupted && !result.failure)
    notice(fmt::format("stopped after step {}; saving and testing (interrupt again to quit)", result.steps));
  save_state(result.model, dir.file("model.safetensors"), s, host.train);
  environment_written.get();

  Evaluation test;
  if (!result.diverged && !result.failure) {
    try {
      test = evaluate(*model, data.test, s);
      watcher.on_test(result, test);
    } catch (const DeviceError&) {
      result.failure = std::current_exception();
    } catch (const OutOfMemory&) {
      result.failure = std::current_exception();
    }
  }
  Json json = result_json(result, seconds, test, *model, s, data);
  dir.write_json("RESULT.json", json);
  json["out"] = dir.path();
  if (options.output.json) print_json(json);
  if (result.failure)
    rethrow_with(result.failure,
                 fmt::format("; {0} keeps the model of step {1}, go on with --from {0} in another --out", dir.path(),
                             result.model_step));
  if (result.diverged) throw DivergedError(result.message + "; logs are in " + dir.path());
  if (!options.output.json) {
    print(fmt::format("{}{}: test accuracy {} on {}, loss {:.4f}, {} steps in {:.1f} s\nrun:  {}\n",
                      target_line(result, s, seconds), result.interrupted ? "interrupted" : "done",
                      styled(stdout, Style::bold, fmt::format("{:.2f} %", 100 * test.accuracy)), data.test.name,
                      test.loss, result.steps, result.seconds, dir.path()));
  }
  watcher.rethrow();
  return result.interrupted ? 128 + watcher.signal() : kOk;
}

}  // namespace

void add_train(CLI::App& program, Action& action) {
  auto o = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("train", "Train one network and write a run directory.");
  command->footer(
      "  tandem train                                  w2 with batch norm, 3 epochs\n"
      "  tandem train --model w3 --bn off --lr 0.02    convolutions, no batch norm\n"
      "  tandem train --layers \"dense:512,bn,relu,dense:10\" --epochs 10 --out runs/mine\n"
      "  tandem train --from runs/mine --epochs 1      go on from trained weights\n"
      "  tandem train --preset fast99 --seed 7         99 % on MNIST in some seconds\n");
  add_preset(*command, o->preset, kPresets);
  add_model_options(*command, o->settings);
  add_on_off(*command, "--bn", o->settings.bn, "with or without the network's batch norms")->group("Network");
  add_text(*command, "--from", o->settings.from, "FILE", "start from the weights of a model file or run")
      ->group("Network");
  add_data_options(*command, o->settings);
  add_training_options(*command, o->settings);
  add_integer(*command, "--eval-from", o->settings.eval_from, 0, "no validation before step N but the last one")
      ->group("Training");
  add_number(*command, "--target", o->settings.target, {0, 100},
             "stop when the validation accuracy, looked at --eval-every, reaches X percent; 0: never")
      ->group("Training");
  add_seed(*command, o->settings);
  add_device_options(*command, o->settings);
  add_dtype(*command, o->settings);
  add_step_options(*command, o->settings);
  add_text(*command, "-o,--out", o->out, "DIR", "the run directory")->default_str("runs/TIME_DATA-MODEL-ARM_sSEED");
  command->add_flag("--force", o->force, "replace an earlier run in --out");
  command->add_flag("--dry-run", o->dry_run, "check and describe the run, do nothing");
  add_output_options(*command, o->output);
  add_config(*command, o->config);
  command->callback([=, &action] {
    take_defaults(*command, o->config);
    for (const char* flag : {"--model", "--layers", "--bn"}) o->network_given |= command->count(flag) > 0;
    take_preset(*command, o->preset, kPresets);
    action = [o] { return run(*o); };
  });
}

}  // namespace tandem
