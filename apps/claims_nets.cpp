#include "claims_nets.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <exception>
#include <mutex>
#include <thread>

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

bool run_jobs(int n, const ClaimsSettings& settings, const std::string& what, ClaimsObserver& observer,
              const std::function<void(int)>& f) {
  std::atomic<int> next{0}, done{0};
  std::atomic<bool> stop{false};
  std::exception_ptr error;
  std::mutex mutex;
  auto work = [&] {
    const SingleThreaded single;
    try {
      for (int i = next++; i < n && !stop; i = next++) {
        f(i);
        const std::lock_guard lock(mutex);
        observer.progress(what, ++done, n);
        if (observer.should_stop()) stop = true;
      }
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      stop = true;
    }
  };
  const int64_t threads = settings.threads > 0 ? settings.threads : available_cores();
  std::vector<std::thread> others;
  for (int64_t t = 1; t < std::min<int64_t>(threads, n); ++t) others.emplace_back(work);
  work();
  for (auto& thread : others) thread.join();
  if (error) std::rethrow_exception(error);
  return done == n;
}

// ---- the statistics of paired runs -----------------------------------------------------------------------------

Difference difference(const std::vector<double>& plain, const std::vector<double>& bn) {
  const Paired p = compare_pairs(Sample(plain.begin(), plain.end()), Sample(bn.begin(), bn.end()), Better::higher);
  return {*p.mean, *p.low, *p.high};
}
Difference log_ratio(const std::vector<double>& plain, const std::vector<double>& bn) {
  std::vector<double> a, b;
  for (const double v : plain) a.push_back(std::log(v));
  for (const double v : bn) b.push_back(std::log(v));
  return difference(a, b);
}
std::string as_factor(const Difference& d) {
  return fmt::format("{:.2f} times [{:.2f}, {:.2f}]", std::exp(d.mean), std::exp(d.low), std::exp(d.high));
}
std::string as_points(const Difference& d) {
  return fmt::format("{:+.2f} points [{:+.2f}, {:+.2f}]", 100 * d.mean, 100 * d.low, 100 * d.high);
}

}  // namespace tandem
