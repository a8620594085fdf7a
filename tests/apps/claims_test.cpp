// The verdicts follow from measurements: hand the claims a layer that is broken in one way, and those verdicts change
// that should, and no others.
#include "claims.h"

#include <cmath>
#include <map>

#include "../catch.hpp"
#include "../helpers.h"
#include "claims_nets.h"
#include "tandem/core/ops.h"
#include "tandem/data/digits.h"

using namespace tandem;
using Catch::Matchers::Contains;
using tandem::test::error_of;

namespace {

// What can be wrong with a batch norm.
enum class Fault {
  none,
  biased_variance,    // the running variance is the biased one
  momentum_reversed,  // weights of the old and the new are exchanged
  no_eps,
  not_updated,      // running statistics stay as they were
  raises_on_one,    // refuses one row under every convention
  takes_anything,   // any number of channels
  normalizes_rows,  // layer norm by another name
  flattens,         // loses the shape
  counts_in_eval,   // the counter moves in eval too
  too_large,        // by the factor that the page's worked example is
  does_nothing,     // no statistics, no normalising
};

class BrokenNorm : public Module {
 public:
  BrokenNorm(Fault fault, int64_t channels, BatchNormLayerOptions options)
      : fault_(fault), channels_(channels), options_(options), norm_(channels, changed(fault, options)) {}

  Tensor forward(const Tensor& x) override {
    const int axis = options_.channel_axis < 0 ? x.rank() - 1 : options_.channel_axis;
    if (fault_ == Fault::takes_anything && x.dim(axis) != channels_) return x;
    if (fault_ == Fault::raises_on_one && is_training() && x.numel() == x.dim(axis)) throw ShapeError("one value");
    if (fault_ == Fault::normalizes_rows) return layer_norm(x, {x.dim(-1)});
    if (fault_ == Fault::does_nothing) return x;
    norm_.train(is_training());
    if (fault_ == Fault::counts_in_eval && !is_training())
      norm_.num_batches_tracked.fill(norm_.num_batches_tracked.item() + 1);
    const StateDict before = norm_.state_dict();
    StateDict kept;
    for (const auto& [name, tensor] : before) kept.emplace_back(name, tensor.clone());
    Tensor y = norm_(x);
    if (fault_ == Fault::not_updated) norm_.load_state_dict(kept);
    if (fault_ == Fault::no_eps && is_training()) {
      std::vector<int> axes;
      for (int i = 0; i < x.rank(); ++i)
        if (i != axis) axes.push_back(i);
      const Tensor d = x - mean(x, axes, true);
      y = d / sqrt(mean(d * d, axes, true));
    }
    if (fault_ == Fault::too_large) y = y * std::sqrt(1.5);
    return fault_ == Fault::flattens ? y.reshape({x.dim(0), x.numel() / x.dim(0)}) : y;
  }
  Shape output_shape(const Shape& x) const override { return x; }
  std::string kind() const override { return "bn"; }
  void members(MemberVisitor& v) override {
    if (fault_ != Fault::does_nothing) norm_.members(v);
  }
  std::unique_ptr<Module> clone() const override { return copy_of(*this, fault_, channels_, options_); }

 private:
  static BatchNormLayerOptions changed(Fault fault, BatchNormLayerOptions options) {
    if (fault == Fault::biased_variance) options.unbiased_running_var = false;
    if (fault == Fault::momentum_reversed) options.momentum.new_weight = 1 - options.momentum.new_weight;
    return options;
  }
  Fault fault_;
  int64_t channels_;
  BatchNormLayerOptions options_;
  BatchNorm norm_;
};

using Verdicts = std::map<std::string, std::string>;

// One a line.
std::string text_of(const Verdicts& verdicts) {
  std::string text;
  for (const auto& [id, verdict] : verdicts) text += id + " " + verdict + "\n";
  return text;
}

std::string verdicts(Fault fault,
                     std::vector<std::string> ids = {"TF2", "TF3", "TF4", "PT1", "PT2", "PT3", "PT4", "PT5"}) {
  ClaimsSettings settings;
  settings.ids = std::move(ids);
  settings.norm = [fault](int64_t channels, const BatchNormLayerOptions& options) {
    return std::make_unique<BrokenNorm>(fault, channels, options);
  };
  ClaimsObserver observer;
  Verdicts result;
  for (const Claim& claim : examine_claims(settings, nullptr, observer)) result[claim.id] = name_of(claim.verdict);
  return text_of(result);
}

const Verdicts kTrue = {{"TF2", "holds"}, {"TF3", "holds"}, {"TF4", "refuted"}, {"PT1", "refuted"},
                        {"PT2", "holds"}, {"PT3", "holds"}, {"PT4", "holds"},   {"PT5", "holds with nuance"}};

std::string with(const Verdicts& changes) {
  Verdicts all = kTrue;
  for (const auto& [id, verdict] : changes) all[id] = verdict;
  return text_of(all);
}

}  // namespace

TEST_CASE("Each claim about the layer gets the verdict that its measurements give") {
  ClaimsSettings settings;
  ClaimsObserver observer;
  for (const auto& [id, verdict] : kTrue) {
    settings.ids = {id};
    const Claim claim = examine_claims(settings, nullptr, observer).at(0);
    INFO(id << ": " << claim.measured << " " << claim.why);
    CHECK(name_of(claim.verdict) == verdict);
    CHECK_FALSE(claim.measurements.empty());
    CHECK_FALSE(claim.statement.empty());
    CHECK_FALSE(claim.measured.empty());
    CHECK_FALSE(claim.why.empty());
  }
}

TEST_CASE("A broken batch norm changes the verdicts it should, and no others") {
  CHECK(verdicts(Fault::none) == with({}));
  CHECK(verdicts(Fault::biased_variance) == with({{"PT2", "holds with nuance"}}));
  CHECK(verdicts(Fault::momentum_reversed) == with({{"TF3", "refuted"}, {"PT3", "refuted"}, {"PT2", "refuted"}}));
  CHECK(verdicts(Fault::no_eps) == with({{"TF4", "holds with nuance"}}));
  CHECK(verdicts(Fault::not_updated) == with({{"TF3", "inconclusive"}, {"PT3", "inconclusive"}, {"PT2", "refuted"}}));
  CHECK(verdicts(Fault::raises_on_one) == with({{"TF4", "holds"}}));
  CHECK(verdicts(Fault::takes_anything) == with({{"PT4", "refuted"}}));
  CHECK(verdicts(Fault::too_large, {"PT1"}) == "PT1 holds\n");
  CHECK(verdicts(Fault::counts_in_eval) == with({{"PT2", "refuted"}}));
  CHECK(verdicts(Fault::does_nothing, {"TF3", "PT3", "PT2"}) == "PT2 refuted\nPT3 inconclusive\nTF3 inconclusive\n");
  CHECK(verdicts(Fault::flattens, {"TF2"}) == "TF2 holds with nuance\n");
  CHECK(verdicts(Fault::normalizes_rows, {"PT1"}) == "PT1 refuted\n");
}

TEST_CASE("The claims' numbers are those of the formulas") {
  ClaimsObserver observer;
  ClaimsSettings settings;
  const auto value = [&](const std::string& id, const std::string& what) {
    settings.ids = {id};
    const Claim claim = examine_claims(settings, nullptr, observer).at(0);
    for (const Measurement& m : claim.measurements)
      if (m.what.find(what) != std::string::npos) return m.value;
    FAIL(id << " has no measurement of " << what);
    return 0.0;
  };
  CHECK(value("PT1", "output, PyTorch's numbers") == Approx(0.9999977777851852).epsilon(1e-15));
  CHECK(value("PT1", "layer norm of a row") == Approx(1.224735685).epsilon(1e-9));
  CHECK(value("TF3", "momentum 0.9") == Approx(2.168).epsilon(1e-12));
  CHECK(value("PT3", "momentum 0.1") == Approx(2.168).epsilon(1e-12));
  CHECK(value("PT2", "running over unbiased") == Approx(1).epsilon(1e-12));
  CHECK(value("TF2", "numbers held") == 12);
  CHECK(error_of([&] { value("TF6", ""); }) == "claims: expected one of TF1 to TF5 and PT1 to PT5, got \"TF6\"");
}

TEST_CASE("The claims about networks follow the layer that they are given, and can be stopped") {
  Splits data;
  std::tie(data.train, data.validation) = split(make_digits(3000, 1), 600);
  data.test = make_digits(100, 2);
  ClaimsSettings settings;
  settings.fast = true;
  ClaimsObserver observer;

  SECTION("the same network twice: nothing is faster, better or shifted") {
    settings.norm = [](int64_t channels, const BatchNormLayerOptions& options) {
      return std::make_unique<BrokenNorm>(Fault::does_nothing, channels, options);
    };
    settings.ids = {"TF1", "TF5"};
    for (const Claim& claim : examine_claims(settings, &data, observer)) {
      INFO(claim.id << ": " << claim.measured);
      // The arms differ by the biases that a batch norm makes superfluous, and by nothing else.
      CHECK(claim.verdict != Verdict::holds);
      CHECK(std::abs(std::log(claim.measurements[0].value)) < 0.7);
    }
  }
  SECTION("stopping leaves the claim out") {
    struct Stop : ClaimsObserver {
      bool should_stop() override { return true; }
    } stop;
    settings.ids = {"PT1", "TF1", "PT2"};
    CHECK(examine_claims(settings, &data, stop).size() == 1);
  }
}

TEST_CASE("The rule of faster and better weighs every count") {
  const TwinsEvidence all{4, 4, 0, 4, 0, 4, 0, false};
  CHECK(judge_twins(all) == Verdict::holds);
  TwinsEvidence e = all;
  e.lower_at_2 = true;
  CHECK(judge_twins(e) == Verdict::holds_with_nuance);
  e = all;
  e.validation_higher = 2;
  CHECK(judge_twins(e) == Verdict::holds_with_nuance);
  e = {4, 4, 0, 0, 0, 0, 0, false};
  CHECK(judge_twins(e) == Verdict::inconclusive);
  e.train_lower = 1;
  CHECK(judge_twins(e) == Verdict::holds_with_nuance);
  e = {4, 1, 2, 0, 1, 1, 0, false};
  CHECK(judge_twins(e) == Verdict::refuted);
  CHECK(judge_twins({4, 0, 0, 0, 0, 0, 0, false}) == Verdict::inconclusive);
}

TEST_CASE("The rule of covariate shift never takes falling together for a reason") {
  CHECK(judge_shift({4, 4, 0, 4, 0}) == Verdict::holds_with_nuance);
  CHECK(judge_shift({4, 0, 0, 1, 3}) == Verdict::holds_with_nuance);
  CHECK(judge_shift({4, 0, 4, 0, 4}) == Verdict::refuted);
  CHECK(judge_shift({4, 0, 0, 0, 0}) == Verdict::inconclusive);
  CHECK(judge_shift({4, 0, 4, 0, 3}) == Verdict::inconclusive);
}

TEST_CASE("Intervals of crossings are as wide as what the measurements leave open") {
  // 200 and 400 in every seed, measured every 50 steps: the truth lies between log(150 / 400) and log(200 / 350).
  const std::vector<Crossing> plain(3, {350, 400}), bn(3, {150, 200});
  const Difference d = log_ratio(plain, bn);
  CHECK(d.mean == Approx(std::log(0.5)));
  CHECK(d.low == Approx(std::log(150.0 / 400)));
  CHECK(d.high == Approx(std::log(200.0 / 350)));
  CHECK(d.below());
  // One measurement apart proves nothing, and neither does what never came.
  const std::vector<Crossing> later(3, {150, 200}), sooner(3, {100, 150});
  CHECK_FALSE(log_ratio(later, sooner).below());
  const std::vector<Crossing> never(3, {500, INFINITY});
  CHECK(log_ratio(never, bn).below());  // plain takes at least its 500 steps
  CHECK_FALSE(log_ratio(never, never).below());
  CHECK_FALSE(log_ratio(never, never).above());
  CHECK(log_ratio(bn, never).above());
  // Student's t over three seeds: 1, 2, 3 has mean 2 and half width 4.303 / sqrt(3).
  const Difference t = difference({0, 0, 0}, {1, 2, 3});
  CHECK(t.mean == 2);
  CHECK(t.high - t.mean == Approx(4.30265 / std::sqrt(3)).epsilon(1e-5));
}
