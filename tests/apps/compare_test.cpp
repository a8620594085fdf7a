// The paired experiment's own checks must fail when there is something to find.
#include "compare.h"

#include <cmath>
#include <limits>

#include "../catch.hpp"
#include "../helpers.h"
#include "run_difference.h"
#include "tandem/core/threads.h"
#include "tandem/data/digits.h"

using namespace tandem;
using Catch::Matchers::Contains;
using tandem::test::error_of;

namespace {

Splits small_data() {
  Splits data;
  std::tie(data.train, data.validation) = split(make_digits(600, 1), 100);
  data.test = make_digits(100, 2);
  return data;
}

CompareSettings settings() {
  CompareSettings s;
  s.training.layers = "dense:16,bn,relu,dense:10";
  s.training.batch_size = 50;
  s.training.max_steps = 15;
  s.training.eval_every = 5;
  s.seeds = {3};
  return s;
}

ArmRun a_run() {
  ArmRun run;
  run.curve = {{10, 1.0, 2.0, 2.1, 0.3}, {20, 2.0, 1.0, 1.1, 0.6}};
  run.steps = 20;
  run.train_accuracy = run.validation_accuracy = run.test_accuracy = 0.6;
  return run;
}

}  // namespace

TEST_CASE("An A/A check sees the smallest difference") {
  const Splits data = small_data();
  const Comparison plan = plan_comparison(settings(), data);
  const auto one = make_model(plan.arms[1].settings, data.train), two = make_model(plan.arms[1].settings, data.train);
  const ArmRun run = a_run();
  CHECK(run_difference(run, *one, run, *two) == 0);

  SECTION("in the last bit of one weight") {
    float* weight = two->parameters()[0].tensor.mutable_data<float>() + 7;
    const float before = *weight;
    *weight = std::nextafter(before, 10.0f);
    CHECK(run_difference(run, *one, run, *two) == double(*weight) - double(before));
  }
  SECTION("in a running statistic") {
    two->buffers()[0].tensor.mutable_data<float>()[3] = 0.5f;
    CHECK(run_difference(run, *one, run, *two) == 0.5);
  }
  SECTION("in a weight that is not a number") {
    two->parameters()[0].tensor.mutable_data<float>()[0] = std::numeric_limits<float>::quiet_NaN();
    CHECK(run_difference(run, *one, run, *two) == INFINITY);
    CHECK(run_difference(run, *two, run, *two) == 0);
  }
  SECTION("in a loss, an accuracy or the length") {
    ArmRun other = run;
    other.curve[1].train_loss = std::nextafter(1.0, 2.0);
    CHECK(run_difference(run, *one, other, *two) > 0);
    other = run;
    other.test_accuracy = 0.61;
    CHECK(run_difference(run, *one, other, *two) == Approx(0.01));
    other.test_accuracy.reset();
    CHECK(run_difference(run, *one, other, *two) == INFINITY);
    other = run;
    other.curve.pop_back();
    CHECK(run_difference(run, *one, other, *two) == INFINITY);
    other = run;
    other.diverged = true;
    CHECK(run_difference(run, *one, other, *two) == INFINITY);
  }
  SECTION("but not in the time that a run took") {
    ArmRun other = run;
    other.seconds = 99;
    other.curve[0].seconds = 5;
    CHECK(run_difference(run, *one, other, *two) == 0);
  }
}

TEST_CASE("Arms that do not start alike or see other batches are refused") {
  const Splits data = small_data();
  CompareObserver nobody;
  Comparison plan = plan_comparison(settings(), data);
  Comparison finished = plan;
  compare(finished, data, nobody);
  CHECK(finished.pairs.size() == 1);

  SECTION("other initial weights") {
    plan.arms[1].settings.layers = "dense:16:init=glorot_normal,bn,relu,dense:10";
    CHECK_THAT(error_of([&] { compare(plan, data, nobody); }),
               Contains("expected both arms of seed 3 to have the same initial weights"));
  }
  SECTION("other batches") {
    plan.arms[1].settings.batch_size = 48;
    CHECK_THAT(error_of([&] { compare(plan, data, nobody); }),
               Contains("expected both arms of seed 3 to have the same batches"));
  }
}

TEST_CASE("A run's first point at or above the target counts") {
  const ArmRun run = a_run();
  CHECK(first_reaching(run, 0.3)->step == 10);
  CHECK(first_reaching(run, 0.31)->step == 20);
  CHECK(first_reaching(run, 0.61) == nullptr);
  CHECK(first_reaching(ArmRun{}, 0.1) == nullptr);
  ArmRun diverged = run;
  diverged.diverged = true;
  CHECK(first_reaching(diverged, 0.3) == nullptr);
}

TEST_CASE("An observer sees every run, and its errors end the comparison") {
  const Splits data = small_data();
  struct Counter : CompareObserver {
    struct Steps : ArmObserver {
      explicit Steps(Counter& all) : all(all) {}
      void on_step(const StepRecord&) override {
        if (++all.steps == all.fail_at) throw IoError("disk full");
      }
      Counter& all;
    };
    std::unique_ptr<ArmObserver> watch(uint64_t, const Arm&) override { return std::make_unique<Steps>(*this); }
    void on_pair(const SeedPair&) override { ++pairs; }
    std::atomic<int> steps{0}, pairs{0};
    int fail_at = -1;
  };
  CompareSettings s = settings();
  s.seeds = {1, 2, 3};
  Counter counter;
  Comparison comparison = plan_comparison(s, data);
  compare(comparison, data, counter);
  CHECK(counter.steps == 3 * 2 * 15);
  CHECK(counter.pairs == 3);
  Counter failing;
  failing.fail_at = 40;
  Comparison cut = plan_comparison(s, data);
  CHECK(error_of([&] { compare(cut, data, failing); }) == "disk full");
  CHECK(failing.steps < 3 * 2 * 15);
  REQUIRE(cut.pairs.size() == size_t(failing.pairs));  // what had finished is kept
  CHECK(cut.interrupted);
  CHECK(cut.pairs.size() >= 1);
}

TEST_CASE("The A/A check is of the run that was planned") {
  const Splits data = small_data();
  CompareSettings s = settings();
  s.training.warmup = 12;  // more than the steps of the check
  Comparison comparison = plan_comparison(s, data);
  CompareObserver nobody;
  compare(comparison, data, nobody);
  CHECK(comparison.aa_steps == 10);
  CHECK(comparison.aa_difference == 0);
  CHECK(comparison.pairs.size() == 1);
}
