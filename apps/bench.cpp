#include "bench.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <fstream>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "clock.h"
#include "statistics.h"
#include "stepper.h"
#include "tandem/core/compile.h"
#include "tandem/core/threads.h"
#include "tandem/optim/optimizer.h"

namespace tandem {

namespace {

constexpr int64_t warm_ups = 20, least_windows = 10;
constexpr double warm_up_seconds = 1, trial_seconds = 0.5;

// One arm: model, data and optimizer.
class Arm {
 public:
  Arm(TrainSettings settings, bool bn, const Dataset& data)
      : settings_(with_arm(std::move(settings), bn)),
        model_(make_model(settings_, data)),
        loader_(make_loader(data, settings_)),
        sgd_(model_->parameters(), {.lr = *settings_.lr, .momentum = settings_.momentum}),
        stepper_(*model_, sgd_, loader_, settings_) {}

  // How many steps run between looks at them: timing fewer would time the looks.
  int64_t window() const { return stepper_.capacity(); }
  void run_window() {
    if (steps_ == 0) run(1);
    run(window());
    look(stepper_.ahead());
  }
  double first_step_s() const { return first_step_s_; }
  double loss_first() const { return loss_first_; }
  double loss_last() {
    look(0);
    return loss_last_;
  }

 private:
  void run(int64_t steps) {
    stepper_.run(steps_, std::vector<double>(static_cast<size_t>(steps), *settings_.lr));
    steps_ += steps;
    ++unseen_;
    if (steps_ == 1) look(0);
  }
  static TrainSettings with_arm(TrainSettings settings, bool bn) {
    settings.bn = bn;
    return resolve(std::move(settings));
  }

  void look(size_t ahead) {
    for (; unseen_ > ahead; --unseen_) {
      for (const StepLog::Record& record : stepper_.take()) loss_last_ = record.loss;
    }
    if (steps_ > 1) return;
    loss_first_ = loss_last_;
    first_step_s_ = seconds_since_process_start();
  }

  TrainSettings settings_;
  std::unique_ptr<Sequential> model_;
  DataLoader loader_;
  SGD sgd_;
  Stepper stepper_;
  int64_t steps_ = 0;
  size_t unseen_ = 0;  // runs
  double loss_first_ = 0, loss_last_ = 0, first_step_s_ = 0;
};

void warm_up(const std::function<void()>& run) {
  const auto start = Clock::now();
  for (int64_t i = 0; i < warm_ups && (i < 2 || seconds_since(start) < warm_up_seconds); ++i) run();
}

// Milliseconds a step of each window until `seconds` have passed.
std::vector<double> timed(const std::function<void()>& run_window, int64_t window, double seconds) {
  std::vector<double> times;
  const auto start = Clock::now();
  do {
    const auto before = Clock::now();
    run_window();
    times.push_back(1e3 * seconds_since(before) / static_cast<double>(window));
  } while (seconds_since(start) < seconds || int64_t(times.size()) < least_windows);
  return times;
}

template <class T>
void set_times(T& result, const std::vector<double>& times, int64_t window) {
  result.ms_per_step = median(times);
  result.p10 = percentile(times, 0.1);
  result.p90 = percentile(times, 0.9);
  result.steps = int64_t(times.size()) * window;
}

BenchArm arm_result(Arm& arm, const std::vector<double>& times) {
  BenchArm result;
  set_times(result, times, arm.window());
  result.loss_first = arm.loss_first();
  result.loss_last = arm.loss_last();
  return result;
}

// Both arms at once, one core or one stream each, started together after their warm-ups. An arm that has its measured
// steps keeps the other company until both are done.
BenchRow pair_at_once(std::array<Arm*, 2> arms, double seconds) {
  std::array<std::vector<double>, 2> times;
  std::array<std::exception_ptr, 2> errors;
  std::atomic<int> warm{0}, done{0};
  auto work = [&](int i) {
    const SingleThreaded one_core;
    try {
      warm_up([&] { arms[i]->run_window(); });
      for (++warm; warm < 2;) std::this_thread::yield();
      times[i] = timed([&] { arms[i]->run_window(); }, arms[i]->window(), seconds);
      for (++done; done < 2;) arms[i]->run_window();
    } catch (...) {
      errors[i] = std::current_exception();
      warm = done = 2;
    }
  };
  std::thread other(work, 1);
  work(0);
  other.join();
  for (const auto& error : errors)
    if (error) std::rethrow_exception(error);
  BenchRow row;
  row.in_parallel = true;
  row.on = arm_result(*arms[0], times[0]);
  row.off = arm_result(*arms[1], times[1]);
  set_times(row, times[row.on->ms_per_step >= row.off->ms_per_step ? 0 : 1], arms[0]->window());
  return row;
}

// One arm, or two in turn, on all threads.
BenchRow in_turn(std::array<Arm*, 2> arms, double seconds) {
  const int64_t window = (arms[0] ? arms[0] : arms[1])->window();
  const auto run_window = [&] {
    for (Arm* arm : arms)
      if (arm) arm->run_window();
  };
  warm_up(run_window);
  const std::vector<double> times = timed(run_window, window, seconds);
  BenchRow row;
  set_times(row, times, window);
  if (arms[0]) row.on = arm_result(*arms[0], times);
  if (arms[1]) row.off = arm_result(*arms[1], times);
  return row;
}

bool runs_faster_at_once(std::array<Arm*, 2> arms) {
  return pair_at_once(arms, trial_seconds).ms_per_step < in_turn(arms, trial_seconds).ms_per_step;
}

double peak_rss_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("VmHWM:")) return std::stod(line.substr(6)) / 1024;  // in kB there
  return 0;
}

}  // namespace

BenchRow bench(const BenchSettings& settings, const Dataset& data) {
  auto make_arms = [&] {
    std::array<std::unique_ptr<Arm>, 2> arms;
    if (settings.bn != "off") arms[0] = std::make_unique<Arm>(settings.training, true, data);
    if (settings.bn != "on") arms[1] = std::make_unique<Arm>(settings.training, false, data);
    return arms;
  };
  auto view = [](const auto& arms) { return std::array<Arm*, 2>{arms[0].get(), arms[1].get()}; };
  const bool pair = settings.bn == "pair";
  const bool on_cpu = settings.training.device == "cpu";
  const bool at_once = pair && (on_cpu && threads() <= 2 ? threads() == 2 : runs_faster_at_once(view(make_arms())));
  const auto arms = make_arms();
  BenchRow row = at_once ? pair_at_once(view(arms), settings.seconds) : in_turn(view(arms), settings.seconds);
  row.batch = *resolve(settings.training).batch_size;
  row.samples_per_s = double((pair ? 2 : 1) * row.batch) / row.ms_per_step * 1e3;
  row.peak_rss_mib = peak_rss_mib();
  for (const auto& arm : arms)
    if (arm) row.first_step_s = std::max(row.first_step_s, arm->first_step_s());
  return row;
}

}  // namespace tandem
