// The training loop: what observers see, what evaluation leaves alone, two models at once.
#include "trainer.h"

#include <cmath>
#include <numeric>
#include <thread>

#include "../catch.hpp"
#include "program.h"
#include "tandem/core/dispatch.h"
#include "tandem/data/digits.h"

using namespace tandem;
using namespace tandem::test;

namespace {

Splits small_data() {
  const Dataset all = make_digits(600, 3);
  return {all.take(0, 400), all.take(400, 100), all.take(500, 100), ""};
}

TrainSettings small_settings() {
  TrainSettings s;
  s.model = "custom";
  s.layers = "dense:24,bn,relu,dropout:0.2,dense:10";
  s.batch_size = 32;
  s.epochs = 3;
  return s;
}

struct Seen : TrainObserver {
  int64_t total = 0;
  std::vector<StepRecord> steps;
  std::vector<ValidationRecord> validations;
  int64_t stop_after = -1;

  void on_start(int64_t n) override { total = n; }
  void on_step(const StepRecord& r) override { steps.push_back(r); }
  void on_validation(const ValidationRecord& r) override { validations.push_back(r); }
  bool should_stop() override { return static_cast<int64_t>(steps.size()) == stop_after; }
};

std::vector<uint8_t> state_bytes(Module& model) {
  std::vector<uint8_t> all;
  for (const auto& [name, tensor] : model.state_dict()) {
    const auto one = bytes(tensor);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

}  // namespace

TEST_CASE("An observer sees every step and every validation") {
  const Splits data = small_data();
  const TrainSettings s = resolve(small_settings());
  const auto model = make_model(s, data.train);
  Seen seen;
  const TrainResult result = train(*model, data, s, seen);
  REQUIRE(seen.total == 36);  // 400 / 32 = 12 batches, the tail dropped
  REQUIRE(seen.steps.size() == 36);
  REQUIRE(seen.validations.size() == 3);
  double last_epoch = 0;
  for (size_t i = 0; i < seen.steps.size(); ++i) {
    CHECK(seen.steps[i].step == static_cast<int64_t>(i) + 1);
    const double cosine = 0.1 * (1 + std::cos(std::acos(-1.0) * static_cast<double>(i) / 36)) / 2;
    CHECK(std::abs(seen.steps[i].lr - cosine) < 1e-12);
    if (i >= 24) last_epoch += seen.steps[i].loss;
  }
  CHECK(seen.validations[1].step == 24);
  CHECK(seen.validations[1].epoch == 2);
  CHECK(std::abs(*result.train_loss - last_epoch / 12) < 1e-12);
  CHECK(result.steps == 36);
  CHECK(result.model_step == 36);
  CHECK(!result.interrupted);
  CHECK(!result.diverged);
  CHECK(result.validation.accuracy == seen.validations.back().validation.accuracy);
  CHECK(*result.train_loss < seen.steps[0].loss);
}

TEST_CASE("A run that is asked to stop ends after that step") {
  const Splits data = small_data();
  const TrainSettings s = resolve(small_settings());
  const auto model = make_model(s, data.train);
  Seen seen;
  seen.stop_after = 5;
  const TrainResult result = train(*model, data, s, seen);
  CHECK(result.interrupted);
  CHECK(result.steps == 5);
  CHECK(result.validation.count == 100);  // of what it leaves
}

TEST_CASE("A run stops at the first validation that reaches its target, and only there") {
  const Splits data = small_data();
  TrainSettings s = small_settings();
  s.eval_every = 3;
  const auto run = [&](double target, Seen& seen) {
    s.target = target;
    const TrainSettings settings = resolve(s);
    return train(*make_model(settings, data.train), data, settings, seen);
  };
  Seen whole, early, never;
  const TrainResult all = run(0, whole);
  CHECK(!all.reached);
  // The target is the accuracy of a validation in the middle: the first one that has as much ends the run.
  const double target = 100 * whole.validations[5].validation.accuracy;
  size_t first = 0;
  while (100 * whole.validations[first].validation.accuracy < target) ++first;
  const TrainResult stopped = run(target, early);
  CHECK(stopped.reached);
  CHECK(!stopped.interrupted);
  CHECK(stopped.steps == whole.validations[first].step);
  CHECK(early.total == 36);  // the schedule stays that of the whole run
  REQUIRE(early.validations.size() == first + 1);
  for (size_t i = 0; i <= first; ++i)
    CHECK(early.validations[i].validation.loss == whole.validations[i].validation.loss);
  s.eval_from = 10;
  Seen late;
  run(0, late);
  CHECK(late.validations.front().step == 12);
  CHECK(late.validations.back().validation.loss == whole.validations.back().validation.loss);
  s.lr = 0;
  const TrainResult missed = run(100, never);
  CHECK(!missed.reached);
  CHECK(missed.steps == 36);
}

TEST_CASE("evaluate restores the mode, moves no stream and repeats itself") {
  const Splits data = small_data();
  const TrainSettings s = resolve(small_settings());
  const auto model = make_model(s, data.train);
  const auto before = state_bytes(*model);
  const Evaluation first = evaluate(*model, data.test, s), second = evaluate(*model, data.test, s);
  CHECK(model->is_training());
  CHECK(state_bytes(*model) == before);
  CHECK(first.loss == second.loss);
  CHECK(first.count == 100);
  CHECK(std::accumulate(first.confusion.begin(), first.confusion.end(), int64_t{0}) == 100);
  CHECK(first.confusion.size() == 100);
  model->eval();
  evaluate(*model, data.test, s);
  CHECK(!model->is_training());
}

TEST_CASE("Two threads that train two models get what one after the other gets") {
  const Splits data = small_data();
  std::vector<TrainSettings> settings = {resolve(small_settings()), resolve(small_settings())};
  settings[1].seed = 9;
  const auto run = [&](size_t i) {
    const auto model = make_model(settings[i], data.train);
    Seen seen;
    train(*model, data, settings[i], seen);
    return state_bytes(*model);
  };
  const std::vector<std::vector<uint8_t>> alone = {run(0), run(1)};
  std::vector<std::vector<uint8_t>> together(2);
  std::thread other([&] { together[1] = run(1); });
  together[0] = run(0);
  other.join();
  CHECK(together == alone);
  CHECK(alone[0] != alone[1]);
}

TEST_CASE("A model that diverges gets back the values of its start, or of its last finite validation") {
  const Splits data = small_data();
  TrainSettings s = small_settings();
  s.bn = false;
  s.lr = 1e20;
  s.schedule = "constant";
  s = resolve(s);
  const auto model = make_model(s, data.train);
  const auto before = state_bytes(*model);
  Seen seen;
  const TrainResult result = train(*model, data, s, seen);
  CHECK(result.diverged);
  CHECK(result.model_step == 0);
  CHECK(result.steps < 12);
  CHECK(state_bytes(*model) == before);
  CHECK_THAT(result.message, Catch::Matchers::Contains("training diverged: the "));
}

TEST_CASE("A model that diverges later, or is interrupted when it already has, gets back its last finite validation") {
  const Splits data = small_data();
  TrainSettings s = small_settings();
  s.layers = "dense:24,dense:10";  // grows without bound
  s.lr = 1e6;
  s.schedule = "constant";
  s.eval_every = 1;
  s = resolve(s);
  const auto model = make_model(s, data.train);
  Seen seen;
  const TrainResult result = train(*model, data, s, seen);
  REQUIRE(result.diverged);
  REQUIRE(!seen.validations.empty());
  CHECK(result.model_step == seen.validations.back().step);
  CHECK(result.model_step > 0);
  CHECK(evaluate(*model, data.validation, s).loss == seen.validations.back().validation.loss);

  s.eval_every = 0;
  const auto again = make_model(s, data.train);
  const auto before = state_bytes(*again);
  Seen stopped;
  stopped.stop_after = result.model_step + 1;  // its weights are not finite, though no loss has been so
  const TrainResult cut = train(*again, data, s, stopped);
  CHECK(cut.steps == stopped.stop_after);
  CHECK(cut.diverged);
  CHECK(cut.model_step == 0);
  CHECK(state_bytes(*again) == before);
}

TEST_CASE("Memory that fails in a step before any validation keeps no model, and after one that validation's") {
  struct NoMemory : LaunchObserver {
    void call(const char* kernel) override {
      if (steps_left == 0 && std::string(kernel) == "SgdStep") throw OutOfMemory("none left");
    }
    void operand(const View&, Use) override {}
    int64_t steps_left = -1;
  } memory;
  struct Until : Seen {
    void on_step(const StepRecord& record) override {
      Seen::on_step(record);
      if (record.step == last) no_memory->steps_left = 0;
    }
    NoMemory* no_memory;
    int64_t last = 0;
  };
  const Splits data = small_data();
  TrainSettings s = small_settings();
  s.eval_every = 4;
  s = resolve(s);
  const auto run = [&](int64_t last) {
    Until seen;
    seen.no_memory = &memory;
    seen.last = last;
    memory.steps_left = -1;
    const auto model = make_model(s, data.train);
    LaunchObserver* before = set_launch_observer(&memory);
    try {
      const TrainResult result = train(*model, data, s, seen);
      set_launch_observer(before);
      return result;
    } catch (...) {
      set_launch_observer(before);
      throw;
    }
  };
  CHECK_THROWS_AS(run(2), OutOfMemory);
  const TrainResult result = run(6);
  CHECK_THROWS_AS(std::rethrow_exception(result.failure), OutOfMemory);
  CHECK(result.steps == 6);
  CHECK(result.model_step == 4);
  for (const auto& [name, tensor] : result.model) {
    if (name.ends_with("num_batches_tracked")) CHECK(tensor.item() == 4);
  }
}

TEST_CASE("check_training refuses what train would refuse, and changes nothing") {
  const Splits data = small_data();
  TrainSettings s = resolve(small_settings());
  const auto model = make_model(s, data.train);
  const auto before = state_bytes(*model);
  check_training(*model, data, s);
  CHECK(state_bytes(*model) == before);
  s.warmup = 37;
  CHECK(error_of([&] { check_training(*model, data, s); }) ==
        "--warmup: expected at most the 36 steps of this run, got 37");
  s.warmup = 0;
  s.batch_size = 1;
  CHECK_THAT(error_of([&] { check_training(*model, data, s); }), Catch::Matchers::Contains("at least 2 values"));
  s.batch_size = 399;
  check_training(*model, data, s);
  s.last_batch = "keep";
  CHECK_THAT(error_of([&] { check_training(*model, data, s); }), Catch::Matchers::Contains("at least 2 values"));
}

TEST_CASE("resolve refuses flags that contradict each other") {
  TrainSettings s;
  s.schedule = "one-cycle";
  s.warmup = 2;
  CHECK(error_of([&] { resolve(s); }) ==
        "--warmup: expected 0 with --schedule one-cycle, which warms up by itself, got 2");
  s.warmup = 0;
  s.nesterov = true;
  s.momentum = 0;
  CHECK(error_of([&] { resolve(s); }) == "--nesterov: expected a --momentum above 0, got 0");
}

TEST_CASE("resolve fills what depends on the network and the optimizer") {
  TrainSettings s;
  s.model = "w1";
  CHECK(*resolve(s).batch_size == 60);
  CHECK(*resolve(s).lr == 0.1);
  CHECK(*resolve(s).epochs == 3);
  s.max_steps = 10;
  CHECK(!resolve(s).epochs);
  s.model = "w3";
  CHECK(*resolve(s).lr == 0.05);
  CHECK(*resolve(s).batch_size == 128);
  s.optimizer = "adamw";
  CHECK(*resolve(s).lr == 0.001);
  CHECK(*resolve(s).weight_decay == 0.01);
  s.bn = false;
  CHECK(resolve(s).layers.find("bn") == std::string::npos);
  s.bn = true;
  s.model = "custom";
  s.layers = "dense:10";
  CHECK(!resolve(s).bn);
}
