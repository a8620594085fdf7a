#include "tandem/optim/schedule.h"

#include <fmt/ranges.h>

#include <cmath>
#include <numbers>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/core/text.h"

namespace tandem {

namespace {

constexpr std::pair<const char*, Schedule::Kind> kKinds[] = {{"constant", Schedule::Kind::constant},
                                                             {"step", Schedule::Kind::step},
                                                             {"cosine", Schedule::Kind::cosine},
                                                             {"one-cycle", Schedule::Kind::one_cycle}};

void check(const Schedule& s, int64_t step) {
  const auto refuse = [](const std::string& text) { throw ValueError("schedule: expected " + text); };
  if (s.total_steps < 1) refuse(fmt::format("total_steps >= 1, got {}", s.total_steps));
  if (step < 0 || step >= s.total_steps) refuse(fmt::format("a step in [0, {}), got {}", s.total_steps, step));
  if (s.warmup_steps < 0 || s.warmup_steps > s.total_steps) {
    refuse(fmt::format("warmup_steps in [0, {}], got {}", s.total_steps, s.warmup_steps));
  }
  if (s.kind == Schedule::Kind::step && (s.step_size < 1 || !(s.gamma >= 0) || !std::isfinite(s.gamma))) {
    refuse(fmt::format("step_size >= 1 and a finite gamma >= 0, got {} and {}", s.step_size, s.gamma));
  }
  if (s.kind != Schedule::Kind::one_cycle) return;
  if (s.warmup_steps > 0)
    refuse(fmt::format("no warm-up for one-cycle, which has its own, got {} steps", s.warmup_steps));
  for (const double fraction : {s.peak_fraction, s.start_factor, s.end_factor}) {
    if (!(fraction >= 0 && fraction <= 1)) {
      refuse(fmt::format("one-cycle's peak_fraction, start_factor and end_factor in [0, 1], got {}", fraction));
    }
  }
}

// From `from` at 0 to `to` at 1 along half a cosine.
double half_cosine(double from, double to, double at) {
  return to + (from - to) / 2 * (1 + std::cos(std::numbers::pi * at));
}

}  // namespace

double Schedule::factor(int64_t step) const {
  check(*this, step);
  if (step < warmup_steps) return static_cast<double>(step + 1) / static_cast<double>(warmup_steps);
  const int64_t past = step - warmup_steps;
  const double t = static_cast<double>(past), total = static_cast<double>(total_steps - warmup_steps);
  switch (kind) {
    case Kind::constant:
      return 1;
    case Kind::step:
      return std::pow(gamma, past / step_size);
    case Kind::cosine:
      return half_cosine(1, 0, t / total);
    case Kind::one_cycle: {
      const double peak = peak_fraction * total - 1, last = total - 1;  // peak may fall between steps
      if (t < peak) return half_cosine(start_factor, 1, t / peak);
      return peak < last ? half_cosine(1, end_factor, (t - peak) / (last - peak)) : 1;
    }
  }
  return 1;
}

Schedule::Kind parse_schedule(const std::string& name) {
  std::vector<std::string> names;
  for (const auto& [known, kind] : kKinds) {
    if (name == known) return kind;
    names.push_back(known);
  }
  throw ValueError(fmt::format("schedule: unknown name \"{}\"{}; there are {}", name, did_you_mean(name, names),
                               fmt::join(names, ", ")));
}

std::string to_string(Schedule::Kind kind) {
  for (const auto& [name, known] : kKinds) {
    if (kind == known) return name;
  }
  return "?";
}

}  // namespace tandem
