// The paired experiment: two networks that differ in one thing, trained alike, seed by seed. Prints and writes
// nothing; see compare_command.cpp for that, findings.h for what its numbers support, report.h for the page.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "trainer.h"

namespace tandem {

struct CompareSettings {
  std::string preset = "quick";  // quick: with and without batch norm; null: the plain network twice (A/A)
  TrainSettings training;        // of both arms; bn and seed are set per run
  std::vector<uint64_t> seeds;
  bool is_null() const { return preset == "null"; }
};

// Fractions of validation accuracy whose first crossing is recorded.
inline constexpr std::array<double, 3> compare_targets = {0.90, 0.95, 0.97};

// One of the two networks.
struct Arm {
  std::string id;     // "plain", "bn"; in an A/A run "plain", "again"
  std::string label;  // "plain", "batch norm", "plain again"
  TrainSettings settings;
  int64_t parameters = 0;
};

struct CurvePoint {
  int64_t step = 0;
  double seconds = 0;     // of training steps alone, up to here
  double train_loss = 0;  // mean over the steps since the point before
  double validation_loss = 0, validation_accuracy = 0;
};

// One network trained from one seed.
struct ArmRun {
  std::string weights_hash;  // SHA-256 of the initial values of the tensors that both arms have
  std::string order_hash;    // SHA-256 of the row numbers of its batches, in order
  std::vector<CurvePoint> curve;
  bool diverged = false;  // then the numbers below are those up to that step and accuracies are missing
  int64_t steps = 0;
  double seconds = 0;  // of training steps alone
  std::optional<double> train_accuracy, validation_accuracy, test_accuracy;
};
// The curve's first point at or above `target`; null if it was not reached or the run diverged in the end.
const CurvePoint* first_reaching(const ArmRun& run, double target);

struct SeedPair {
  uint64_t seed = 0;
  std::array<ArmRun, 2> runs;
};

struct Comparison {
  CompareSettings settings;
  std::array<Arm, 2> arms;
  std::string dataset;
  int64_t validation_count = 0, test_count = 0;
  std::vector<SeedPair> pairs;  // of the seeds that finished, in the order asked for
  bool interrupted = false;
  bool parallel_arms = false;  // both arms of a pair ran at the same time, one thread each
  int parallel_pairs = 1;
  int64_t total_steps = 0;  // of one run
  int64_t eval_every = 0;   // steps between validations
  // The largest difference between two runs of one network from one seed: over losses, accuracies and final
  // weights. Anything but 0 means that differences between arms may be chance of the machine. Unset until two
  // such runs have ended.
  std::optional<double> aa_difference;
  int64_t aa_steps = 0;  // of each run that it was taken from
  double seconds = 0;    // of everything
};

// Watches one run of a comparison, in the thread that trains it; should_stop() is not asked.
struct ArmObserver : TrainObserver {
  virtual void on_end(Module& /*as trained*/) {}  // not if the run was stopped
};
// Watches a comparison. Called from several threads at once.
struct CompareObserver {
  virtual ~CompareObserver() = default;
  virtual void on_start(const Comparison& /*arms, total_steps and threads are set*/) {}
  // A watcher for one run, asked for in the thread that will train; may be null.
  virtual std::unique_ptr<ArmObserver> watch(uint64_t /*seed*/, const Arm&) { return nullptr; }
  virtual void on_pair(const SeedPair&) {}
  virtual bool should_stop() { return false; }
};

// What will be run: no pairs yet. Throws UsageError if the layers hold no batch norm to leave out, and what
// make_model and check_training throw.
Comparison plan_comparison(const CompareSettings& settings, const Splits& data);

// Checks that two runs from one seed agree (a few steps of each arm), then trains every pair of a plan, which
// becomes its result. A run that diverges is a result; stopping keeps the finished pairs, and so does an exception:
// the observer's, or Error if the A/A check fails or the arms of a pair do not start from the same weights or see
// different batches.
void compare(Comparison& comparison, const Splits& data, CompareObserver& observer);

}  // namespace tandem
