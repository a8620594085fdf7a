// The networks behind the claims about training, 784-100-100-100-10 as in Ioffe and Szegedy 2015, section 4.1, trained
// with plain SGD; and the statistics of paired runs of them.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "claims.h"

namespace tandem {

// How one network is trained.
struct Recipe {
  std::string activation;  // relu, sigmoid
  double lr = 0.1;
  int64_t batch = 60, steps = 0;
};
std::unique_ptr<Sequential> make_net(const NormMaker& norm, const Recipe& recipe, bool bn, uint64_t seed);
TrainSettings settings_of(const Recipe& recipe, uint64_t seed, int64_t eval_every);

// f(0) .. f(n - 1), as many at once as the settings say; false if should_stop() ended it early.
bool run_all(int n, const ClaimsSettings& settings, const std::string& what, ClaimsObserver& observer,
             const std::function<void(int)>& f);

// What is larger with batch norm than without, over paired seeds: the mean, and the 95 % interval of the mean
// (Student's t; where all seeds agree to the last bit, that value).
struct Difference {
  double mean = 0, low = 0, high = 0;
  bool above() const { return low > 0; }
  bool below() const { return high < 0; }
};
Difference difference(const std::vector<double>& plain, const std::vector<double>& bn);
Difference log_ratio(const std::vector<double>& plain, const std::vector<double>& bn);

// When a run reached a target: known to lie in (low, high], high infinite if it never did.
struct Crossing {
  double low, high;
};
// log(bn / plain), its interval as wide as what the crossings leave open; infinite ends where a run never got there.
Difference log_ratio(const std::vector<Crossing>& plain, const std::vector<Crossing>& bn);

std::string as_factor(const Difference& log_ratio);  // "2.10 times [1.80, 2.50]"
std::string as_points(const Difference& share);      // "+1.20 points [+0.90, +1.50]"

}  // namespace tandem
