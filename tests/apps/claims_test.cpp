// The verdicts follow from measurements: hand the claims a layer that is broken in one way, and those verdicts change
// that should, and no others.
#include "claims.h"

#include <map>

#include "../catch.hpp"
#include "../helpers.h"
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
    norm_.train(is_training());
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
    return fault_ == Fault::flattens ? y.reshape({x.dim(0), x.numel() / x.dim(0)}) : y;
  }
  Shape output_shape(const Shape& x) const override { return x; }
  std::string kind() const override { return "bn"; }
  void members(MemberVisitor& v) override { norm_.members(v); }
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
  CHECK(verdicts(Fault::flattens, {"TF2"}) == "TF2 holds with nuance\n");
  CHECK(verdicts(Fault::normalizes_rows, {"PT1"}) == "PT1 holds\n");
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

  SECTION("a layer that does nothing is neither faster nor better") {
    struct Nothing : Module {
      Tensor forward(const Tensor& x) override { return x; }
      Shape output_shape(const Shape& x) const override { return x; }
      std::string kind() const override { return "bn"; }
      std::unique_ptr<Module> clone() const override { return copy_of(*this); }
    };
    settings.norm = [](int64_t, const BatchNormLayerOptions&) { return std::make_unique<Nothing>(); };
    settings.ids = {"TF1"};
    const Claim shift = examine_claims(settings, &data, observer).at(0);
    CHECK(name_of(shift.verdict) == std::string("inconclusive"));
  }
  SECTION("stopping leaves the claim out") {
    struct Stop : ClaimsObserver {
      bool should_stop() override { return true; }
    } stop;
    settings.ids = {"PT1", "TF1", "PT2"};
    CHECK(examine_claims(settings, &data, stop).size() == 1);
  }
}
