#include "tandem/optim/step_log.h"

#include <cmath>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/ops.h"

using namespace tandem;
using namespace tandem::test;

namespace {

Tensor floats(const std::vector<float>& values, const Shape& shape) {
  return Tensor::from(values, shape, test_device());
}

}  // namespace

TEST_CASE("A step log keeps loss and hits of each step until they are taken", "[ops]") {
  StepLog log(3, test_device());
  const Tensor labels = Tensor::from(std::vector<int32_t>{0, 1, 1}, {3}, test_device());
  const Tensor two_right = floats({2, 1, 0, 3, 5, 4}, {3, 2}), ties = floats({1, 1, 1, 1, 1, 1}, {3, 2});
  log.note(floats({0.5f}, {}), two_right, labels);
  log.note(floats({std::nanf("")}, {}), ties, labels);  // of equals the first counts
  std::vector<StepLog::Record> records = log.take();
  REQUIRE(records.size() == 2);
  CHECK(records[0].loss == 0.5);
  CHECK(records[0].correct == 2);
  CHECK(std::isnan(records[1].loss));
  CHECK(records[1].correct == 1);
  CHECK(log.take().empty());
  for (int i = 0; i < 3; ++i) log.note(floats({static_cast<float>(i)}, {}), two_right, labels);
  records = log.take();
  REQUIRE(records.size() == 3);
  for (int i = 0; i < 3; ++i) CHECK(records[static_cast<size_t>(i)].loss == i);
}

TEST_CASE("What was noted before a mark is taken by itself, whatever was noted later", "[ops]") {
  StepLog log(3, test_device());
  const Tensor labels = Tensor::from(std::vector<int32_t>{0}, {1}, test_device());
  const auto note = [&](float loss) {
    log.note(full({}, loss, {.device = test_device()}), ones({1, 2}, {.device = test_device()}), labels);
  };
  note(1);
  note(2);
  log.mark();
  note(3);
  note(4);  // in the place of 1
  log.mark();
  note(5);
  const auto losses = [&] {
    std::vector<double> all;
    for (const StepLog::Record& record : log.take()) all.push_back(record.loss);
    return all;
  };
  CHECK(losses() == std::vector<double>{1, 2});
  CHECK(losses() == std::vector<double>{3, 4});
  CHECK(losses() == std::vector<double>{5});
  CHECK(losses().empty());
}

TEST_CASE("A step log refuses what does not fit, and says when it overflowed", "[ops]") {
  CHECK(error_of([] { StepLog log(0, test_device()); }) == "StepLog: expected a capacity of at least 1, got 0");
  StepLog log(1, test_device());
  const Tensor labels = zeros({2}, {Dtype::int32, test_device()}), logits = floats({1, 2, 3, 4}, {2, 2});
  CHECK(error_of([&] { log.note(logits, logits, labels); }) ==
        "StepLog: expected a loss of one element, logits[N, C] and labels[N], got loss[2, 2], logits[2, 2] and "
        "labels[2]");
  log.note(floats({1}, {}), logits, labels);
  log.note(floats({1}, {}), logits, labels);
  CHECK(error_of([&] { log.take(); }) ==
        "StepLog: expected at most 1 steps since the last take(), got 2; take more often");
}
