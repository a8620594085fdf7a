#include "claims_nets.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <mutex>

#include "jobs.h"
#include "statistics.h"
#include "tandem/core/threads.h"
#include "tandem/layers/activation.h"
#include "tandem/layers/dense.h"
#include "tandem/layers/pool.h"

namespace tandem {

std::unique_ptr<Sequential> make_net(const NormMaker& norm, const Recipe& recipe, bool bn, uint64_t seed) {
  auto net = std::make_unique<Sequential>(seed);
  const bool relu = recipe.activation == "relu";
  const Init init = relu ? Init::he_normal() : Init::lecun_normal();
  net->add<Flatten>();
  int64_t in = 28 * 28;
  for (int i = 0; i < 3; ++i, in = 100) {
    net->add(Dense(in, 100, {.bias = !bn, .init = init}));
    if (bn) net->append(norm(100, {}));
    if (relu)
      net->add<ReLU>();
    else
      net->add<Sigmoid>();
  }
  net->add(Dense(in, 10, {.init = init}));
  return net;
}

TrainSettings settings_of(const Recipe& recipe, uint64_t seed, int64_t eval_every) {
  TrainSettings s;
  s.model = "custom";
  s.max_steps = recipe.steps;
  s.batch_size = recipe.batch;
  s.lr = recipe.lr;
  s.momentum = 0;
  s.weight_decay = 0;
  s.schedule = "constant";
  s.seed = seed;
  s.eval_every = eval_every;
  return s;
}

bool run_all(int n, const ClaimsSettings& settings, const std::string& what, ClaimsObserver& observer,
             const std::function<void(int)>& f) {
  std::atomic<bool> stop{false};
  std::mutex mutex;
  int done = 0;
  const int64_t at_once = settings.threads > 0 ? settings.threads : available_cores();
  run_jobs(n, static_cast<int>(at_once), stop, [&](int i) {
    f(i);
    const std::lock_guard lock(mutex);
    observer.progress(what, ++done, n);
    if (observer.should_stop()) stop = true;
  });
  return done == n;
}

// ---- the statistics of paired runs -----------------------------------------------------------------------------

Difference difference(const std::vector<double>& plain, const std::vector<double>& bn) {
  const Paired p = compare_pairs(Sample(plain.begin(), plain.end()), Sample(bn.begin(), bn.end()), Better::higher);
  return {*p.mean, p.low.value_or(*p.mean), p.high.value_or(*p.mean)};
}

namespace {

template <class T, class F>
std::vector<double> logs(const std::vector<T>& values, const F& f) {
  std::vector<double> result;
  for (const T& v : values) result.push_back(std::log(f(v)));
  return result;
}

}  // namespace

Difference log_ratio(const std::vector<double>& plain, const std::vector<double>& bn) {
  const auto same = [](double v) { return v; };
  return difference(logs(plain, same), logs(bn, same));
}

Difference log_ratio(const std::vector<Crossing>& plain, const std::vector<Crossing>& bn) {
  const auto low = [](const Crossing& c) { return std::max(1.0, c.low); };
  const auto high = [](const Crossing& c) { return c.high; };
  const auto seen = [](const Crossing& c) { return std::isfinite(c.high) ? c.high : c.low; };
  const auto always = [](const std::vector<Crossing>& all) {
    return std::all_of(all.begin(), all.end(), [](const Crossing& c) { return std::isfinite(c.high); });
  };
  Difference d = difference(logs(plain, seen), logs(bn, seen));
  d.low = always(plain) ? difference(logs(plain, high), logs(bn, low)).low : -INFINITY;
  d.high = always(bn) ? difference(logs(plain, low), logs(bn, high)).high : INFINITY;
  return d;
}

std::string as_factor(const Difference& d) {
  return fmt::format("{:.2f} times [{:.2f}, {:.2f}]", std::exp(d.mean), std::exp(d.low), std::exp(d.high));
}
std::string as_points(const Difference& d) {
  return fmt::format("{:+.2f} points [{:+.2f}, {:+.2f}]", 100 * d.mean, 100 * d.low, 100 * d.high);
}

}  // namespace tandem
