// How long a training step takes: everything from picking the batch to the optimizer's update.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "trainer.h"

namespace tandem {

struct BenchSettings {
  TrainSettings training;  // the workload, batch size, data set, dtype, threads; lr constant
  std::string bn = "on";   // on, off, or pair: one step of each arm
  double seconds = 5;      // measured, after a warm-up
};

struct BenchArm {
  double ms_per_step = 0, p10 = 0, p90 = 0;  // median and percentiles over the measured steps
  int64_t steps = 0;
  double loss_first = 0, loss_last = 0;  // of the very first step and the last: it trained
};

struct BenchRow {
  // pair, arms at once: of the slower arm. Arms in turn: of both steps together.
  double ms_per_step = 0, p10 = 0, p90 = 0;
  double samples_per_s = 0;  // of all arms
  int64_t batch = 0, steps = 0;
  std::optional<BenchArm> on, off;
  bool in_parallel = false;  // pair: both arms ran at once, one thread each
  double peak_rss_mib = 0;   // of the process so far
  double first_step_s = 0;   // from the start of the process to the end of each arm's first step; up to 10 ms too much
};

// Fresh models each time. A pair runs as two threads of one core each or with its arms in turn on all threads,
// whichever is faster (one thread: in turn; two: at once; more: tried out first).
BenchRow bench(const BenchSettings& settings, const Dataset& data);

}  // namespace tandem
