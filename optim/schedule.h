// Learning-rate schedules: plain functions of the step, as factors of the base lr.
#pragma once

#include <cstdint>
#include <string>

namespace tandem {

// The factor for step 0 .. total_steps-1. Warm-up rises linearly from 1/warmup_steps to 1 over its steps and
// then the schedule runs over the rest; one_cycle warms up by itself and takes none.
struct Schedule {
  enum class Kind { constant, step, cosine, one_cycle } kind = Kind::constant;
  int64_t total_steps = 1;
  int64_t warmup_steps = 0;
  int64_t step_size = 1;  // step: the factor is multiplied by gamma every step_size steps
  double gamma = 0.1;
  double peak_fraction = 0.3, start_factor = 1.0 / 25, end_factor = 1.0 / 25e4;  // one_cycle, PyTorch's numbers

  // cosine: (1 + cos(pi t / T)) / 2, so that the last step is just above 0 (Loshchilov and Hutter 2017).
  // one_cycle: cosine from start_factor to 1 and down to end_factor (Smith and Topin 2018; PyTorch's OneCycleLR).
  double factor(int64_t step) const;  // throws ValueError for a step or settings out of range
};

// "constant", "step", "cosine", "one-cycle"; throws ValueError listing them.
Schedule::Kind parse_schedule(const std::string& name);
std::string to_string(Schedule::Kind kind);

}  // namespace tandem
