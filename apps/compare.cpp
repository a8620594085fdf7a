#include "compare.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

#include "clock.h"
#include "jobs.h"
#include "run_difference.h"
#include "tandem/core/hash.h"
#include "tandem/core/threads.h"
#include "tandem/layers/build.h"

namespace tandem {

namespace {

using Models = std::array<std::unique_ptr<Sequential>, 2>;
constexpr int64_t aa_check_steps = 10, aa_check_images = 500;

// ---- proof of pairing --------------------------------------------------------------------------------------

// Names and values of the parameters that both models have, by name and shape.
std::string shared_weights_hash(Module& model, Module& other) {
  std::map<std::string, Shape> shapes;
  for (const auto& parameter : other.parameters()) shapes.emplace(parameter.name, parameter.tensor.shape());
  std::string bytes;
  for (const auto& parameter : model.parameters()) {
    const auto found = shapes.find(parameter.name);
    if (found == shapes.end() || !(found->second == parameter.tensor.shape())) continue;
    bytes += parameter.name + "\n";
    const Tensor host = parameter.tensor.to(Dtype::float64).to(Device{});
    bytes.append(reinterpret_cast<const char*>(host.data<double>()), size_t(host.numel()) * sizeof(double));
  }
  return sha256(bytes.data(), bytes.size());
}

// The row numbers that the run will draw, epoch by epoch.
std::string order_hash(const DataLoader& loader, int64_t steps) {
  std::string bytes;
  for (int64_t epoch = 0; epoch * loader.batches() < steps; ++epoch) {
    const std::vector<int32_t> rows = loader.order(epoch);
    bytes.append(reinterpret_cast<const char*>(rows.data()), rows.size() * sizeof(int32_t));
  }
  return sha256(bytes.data(), bytes.size());
}

// ---- one run -------------------------------------------------------------------------------------------------

// Keeps the curve and the time of training steps alone; passes everything on.
class Recorder : public TrainObserver {
 public:
  Recorder(ArmRun& run, TrainObserver* next, std::function<bool()> should_stop)
      : run_(run), next_(next), should_stop_(std::move(should_stop)) {}

  void on_start(int64_t total_steps) override {
    if (next_) next_->on_start(total_steps);
    last_ = Clock::now();
  }
  void on_step(const StepRecord& record) override {
    run_.seconds += seconds_since(last_);
    run_.steps = record.step;
    loss_sum_ += record.loss;
    ++loss_count_;
    if (next_) next_->on_step(record);
    last_ = Clock::now();
  }
  void on_validation(const ValidationRecord& record) override {
    const double loss = loss_count_ ? loss_sum_ / double(loss_count_) : 0;
    run_.curve.push_back({record.step, run_.seconds, loss, record.validation.loss, record.validation.accuracy});
    loss_sum_ = 0;
    loss_count_ = 0;
    if (next_) next_->on_validation(record);
    last_ = Clock::now();
  }
  bool should_stop() override { return should_stop_(); }

 private:
  ArmRun& run_;
  TrainObserver* next_;
  std::function<bool()> should_stop_;
  Clock::time_point last_ = Clock::now();
  double loss_sum_ = 0;
  int64_t loss_count_ = 0;
};

// Trains `model` to the end. Returns false if it was stopped; a run that diverges has ended.
bool run_arm(Module& model, const Splits& data, const TrainSettings& settings, TrainObserver* watcher,
             const std::function<bool()>& should_stop, ArmRun& run) {
  Recorder recorder(run, watcher, should_stop);
  const TrainResult result = train(model, data, settings, recorder);
  if (result.failure) std::rethrow_exception(result.failure);
  run.diverged = result.diverged;
  if (!result.diverged) run.validation_accuracy = result.validation.accuracy;
  return !result.interrupted;
}

// ---- A/A -------------------------------------------------------------------------------------------------------

// Each arm twice from the first seed, for the first few steps of the run that was planned, the two side by side
// where the pairs will be.
double aa_check(const Comparison& comparison, const Splits& data, const std::function<bool()>& should_stop) {
  Splits small = data;
  small.validation = data.validation.take(0, std::min(data.validation.size(), aa_check_images));
  double largest = 0;
  for (const Arm& arm : comparison.arms) {
    TrainSettings settings = arm.settings;
    settings.seed = comparison.settings.seeds.front();
    settings.eval_every = comparison.aa_steps;
    Models models;
    std::array<ArmRun, 2> runs;
    std::atomic<bool> failed{false};
    run_jobs(2, comparison.parallel_arms ? 2 : 1, failed, [&](int i) {
      models[i] = make_model(settings, data.train);
      ArmRun& run = runs[i];
      run_arm(
          *models[i], small, settings, nullptr, [&] { return run.steps >= comparison.aa_steps || should_stop(); }, run);
    });
    largest = std::max(largest, run_difference(runs[0], *models[0], runs[1], *models[1]));
  }
  return largest;
}

// ---- pairs -------------------------------------------------------------------------------------------------------

// Everything that the pairs of one comparison share.
class Experiment {
 public:
  Experiment(Comparison& comparison, const Splits& data, CompareObserver& observer)
      : comparison_(comparison), data_(data), observer_(observer) {}

  void run_all(Clock::time_point start) {
    const auto& seeds = comparison_.settings.seeds;
    std::vector<std::optional<SeedPair>> pairs(seeds.size());
    std::exception_ptr failure;
    try {
      run_jobs(int(seeds.size()), comparison_.parallel_pairs, failed_, [&](int i) { pairs[i] = run_pair(seeds[i]); });
    } catch (...) {
      failure = std::current_exception();
    }
    for (auto& pair : pairs)
      if (pair) comparison_.pairs.push_back(std::move(*pair));
    comparison_.interrupted = comparison_.pairs.size() < seeds.size();
    comparison_.seconds = seconds_since(start);
    if (failure) std::rethrow_exception(failure);
  }

 private:
  bool should_stop() { return failed_ || observer_.should_stop(); }

  // Empty if it was stopped before both arms had ended.
  std::optional<SeedPair> run_pair(uint64_t seed) {
    if (should_stop()) return std::nullopt;
    SeedPair pair;
    pair.seed = seed;
    Models models = prepare(pair);
    std::array<bool, 2> ended{};
    run_jobs(2, comparison_.parallel_arms ? 2 : 1, failed_, [&](int i) {
      const auto watcher = observer_.watch(seed, comparison_.arms[i]);
      TrainSettings settings = comparison_.arms[i].settings;
      settings.seed = seed;
      ArmRun& run = pair.runs[i];
      ended[i] = run_arm(
          *models[i], data_, settings, watcher.get(), [this] { return should_stop(); }, run);
      if (ended[i] && watcher) watcher->on_end(*models[i]);
      if (!ended[i] || run.diverged) return;
      run.train_accuracy = evaluate(*models[i], data_.train, settings).accuracy;
      run.test_accuracy = evaluate(*models[i], data_.test, settings).accuracy;
    });
    if (!ended[0] || !ended[1]) return std::nullopt;
    finish(pair, models);
    return pair;
  }

  // Fresh models and the proof that they start alike.
  Models prepare(SeedPair& pair) {
    Models models;
    for (int i = 0; i < 2; ++i) {
      TrainSettings settings = comparison_.arms[i].settings;
      settings.seed = pair.seed;
      models[i] = make_model(settings, data_.train);
      pair.runs[i].order_hash = order_hash(make_loader(data_.train, settings), comparison_.total_steps);
    }
    for (int i = 0; i < 2; ++i) pair.runs[i].weights_hash = shared_weights_hash(*models[i], *models[1 - i]);
    require_same("initial weights", pair.seed, pair.runs[0].weights_hash, pair.runs[1].weights_hash);
    require_same("batches", pair.seed, pair.runs[0].order_hash, pair.runs[1].order_hash);
    return models;
  }

  static void require_same(const char* what, uint64_t seed, const std::string& first, const std::string& second) {
    if (first == second) return;
    throw Error(
        fmt::format("compare: expected both arms of seed {} to have the same {}, got SHA-256 {} and {}; "
                    "this is a defect of the program",
                    seed, what, first, second));
  }

  void finish(const SeedPair& pair, const Models& models) {
    const std::lock_guard lock(mutex_);
    if (comparison_.settings.is_null()) {
      const double difference = run_difference(pair.runs[0], *models[0], pair.runs[1], *models[1]);
      comparison_.aa_difference = std::max(comparison_.aa_difference.value_or(0), difference);
    }
    observer_.on_pair(pair);
  }

  Comparison& comparison_;
  const Splits& data_;
  CompareObserver& observer_;
  std::atomic<bool> failed_{false};
  std::mutex mutex_;
};

Arm make_arm(const CompareSettings& settings, bool second, const Splits& data) {
  Arm arm;
  const bool bn = second && !settings.is_null();
  arm.id = !second ? "plain" : bn ? "bn" : "again";
  arm.label = !second ? "plain" : bn ? "batch norm" : "plain again";
  arm.settings = settings.training;
  arm.settings.bn = bn;
  arm.settings = resolve(arm.settings, data.train);
  arm.settings.seed = settings.seeds.front();
  const auto model = make_model(arm.settings, data.train);
  check_training(*model, data, arm.settings);
  arm.parameters = count_values(model->parameters());
  return arm;
}

}  // namespace

const CurvePoint* first_reaching(const ArmRun& run, double target) {
  if (run.diverged) return nullptr;
  for (const CurvePoint& point : run.curve)
    if (point.validation_accuracy >= target) return &point;
  return nullptr;
}

Comparison plan_comparison(const CompareSettings& settings, const Splits& data) {
  Comparison comparison;
  comparison.settings = settings;
  for (int i = 0; i < 2; ++i) comparison.arms[i] = make_arm(settings, i == 1, data);
  if (!settings.is_null() && !comparison.arms[1].settings.bn)
    throw UsageError(
        fmt::format("compare: expected layers with a bn to leave out, got '{}'; put ',bn' after a "
                    "dense or conv",
                    comparison.arms[1].settings.layers));
  comparison.dataset = data.train.name;
  comparison.validation_count = data.validation.size();
  comparison.test_count = data.test.size();
  comparison.parallel_arms = threads() >= 2;
  comparison.parallel_pairs = std::clamp(threads() / 2, 1, int(settings.seeds.size()));
  const DataLoader loader = make_loader(data.train, comparison.arms[0].settings);
  comparison.total_steps = total_steps(loader, comparison.arms[0].settings);
  comparison.eval_every = settings.training.eval_every > 0 ? settings.training.eval_every : loader.batches();
  comparison.aa_steps = settings.is_null() ? comparison.total_steps : std::min(comparison.total_steps, aa_check_steps);
  return comparison;
}

void compare(Comparison& comparison, const Splits& data, CompareObserver& observer) {
  const auto start = Clock::now();
  observer.on_start(comparison);
  if (!comparison.settings.is_null()) {
    const double difference = aa_check(comparison, data, [&] { return observer.should_stop(); });
    if (!observer.should_stop()) comparison.aa_difference = difference;
    if (comparison.aa_difference.value_or(0) != 0)
      throw Error(
          fmt::format("compare: expected two runs of one network from one seed to agree exactly, got a "
                      "difference of {:g} after {} steps; nothing was compared",
                      difference, comparison.aa_steps));
  }
  Experiment(comparison, data, observer).run_all(start);
}

}  // namespace tandem
