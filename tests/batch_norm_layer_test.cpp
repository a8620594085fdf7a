// BatchNorm, the layer: freezing, ranks, masks, warnings; and its relatives.
#include <cmath>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"
#include "tandem/layers/batch_norm.h"
#include "tandem/layers/build.h"
#include "tandem/layers/dense.h"
#include "tandem/layers/group_norm.h"
#include "tandem/layers/layer_norm.h"
#include "training.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Values = std::vector<double>;

}  // namespace

TEST_CASE("A frozen batch norm normalises as in eval, moves nothing, and stays frozen") {
  BatchNorm norm(3);
  train_on_noise(norm, {16, 3});
  norm.eval();
  const Tensor x = random({7, 3}, 9), expected = norm(x);
  norm.train();
  norm.freeze();
  CHECK(norm.is_frozen());
  const auto before = state_bytes(norm);
  for (int i = 0; i < 100; ++i) {
    norm.train();
    const Tensor y = norm(x);
    CHECK_FALSE(y.requires_grad());
    if (i == 0) CHECK(bytes(y) == bytes(expected));
  }
  CHECK(state_bytes(norm) == before);
  CHECK(norm.text() == "bn:frozen");

  // Gradients still pass through it to what lies before, with running statistics.
  Tensor input = random({7, 3}, 10);
  input.set_requires_grad(true);
  sum(norm(input)).backward();
  const Values dx = values(input.grad()), gamma = values(norm.weight), var = values(norm.running_var);
  for (size_t i = 0; i < dx.size(); ++i)
    CHECK(dx[i] == Approx(gamma[i % 3] / std::sqrt(var[i % 3] + 1e-5)).epsilon(1e-6));
  CHECK_FALSE(norm.weight.grad().defined());

  // One value per channel is no trouble; clones and files stay frozen.
  CHECK(norm(random({1, 3}, 1)).shape() == Shape{1, 3});
  CHECK(dynamic_cast<BatchNorm&>(*norm.clone()).is_frozen());
  Sequential model;
  model.add<Dense>(4, 3);
  model.add<BatchNorm>(3).freeze();
  const TempDir dir;
  save(model, dir.file("m"), {{"input_shape", "[4]"}});
  const auto loaded = load_model(dir.file("m"));
  CHECK(dynamic_cast<BatchNorm&>((*loaded)[1]).is_frozen());
  CHECK_FALSE(loaded->parameters()[2].tensor.requires_grad());

  norm.unfreeze();
  CHECK(norm(x).requires_grad());
  CHECK(state_bytes(norm) != before);
}

TEST_CASE("Only a batch norm with running statistics can be frozen") {
  BatchNorm norm(3, {.track_running_stats = false});
  CHECK(error_of([&] { norm.freeze(); }) == "BatchNorm: expected running statistics to freeze, this layer keeps none");
  CHECK_FALSE(norm.is_frozen());
  CHECK(norm.weight.requires_grad());
}

TEST_CASE("PyTorch's names fix its numbers and the rank, not the layout") {
  BatchNorm1d one(3);
  BatchNorm2d two(3, {.channel_axis = 1});
  BatchNorm3d three(3);
  CHECK(one(random({4, 3}, 1)).shape() == Shape{4, 3});
  CHECK(one(random({4, 5, 3}, 1)).shape() == Shape{4, 5, 3});
  CHECK(two(random({2, 3, 4, 4}, 1)).shape() == Shape{2, 3, 4, 4});
  CHECK(three(random({2, 2, 2, 2, 3}, 1)).shape() == Shape{2, 2, 2, 2, 3});
  CHECK(one.options().eps == 1e-5);
  CHECK(one.options().momentum.new_weight == 0.1);
  CHECK(error_of([&] {
          one(random({2, 4, 4, 3}, 1));
        }) == "BatchNorm: expected x of 2 to 3 axes, got x[2, 4, 4, 3] (4)");
  CHECK(error_of([&] { two(random({4, 3}, 1)); }) == "BatchNorm: expected x of 4 axes, got x[4, 3] (2)");
  CHECK(error_of([&] { three(random({2, 4, 4, 3}, 1)); }) == "BatchNorm: expected x of 5 axes, got x[2, 4, 4, 3] (4)");
  CHECK(error_of([&] {
          two(random({10, 5, 32, 32}, 1));
        }) ==
        "BatchNorm: built for 3 channels, but axis 1 of x[10, 5, 32, 32] has 5; build it with 5, or change the layer "
        "before it");
  CHECK(
      error_of([&] {
        two(random({10, 8, 8, 3}, 1));
      }) ==
      "BatchNorm: built for 3 channels, but axis 1 of x[10, 8, 8, 3] has 8; the last axis has 3: set channel_axis = -1 "
      "if the data are channels-last");
  // A clone keeps the rank.
  CHECK_THROWS_AS((*one.clone())(random({2, 4, 4, 3}, 1)), ShapeError);
}

TEST_CASE("Batch norm refuses ranks and zero scales that make no sense") {
  CHECK(error_of([] { BatchNorm(3, {.min_rank = 1}); }) == "BatchNorm: expected ranks within 2 to 5, got 1 to 5");
  CHECK(error_of([] { BatchNorm(3, {.min_rank = 4, .max_rank = 3}); }) ==
        "BatchNorm: expected ranks within 2 to 5, got 4 to 3");
  CHECK(error_of([] { BatchNorm(3, {.scale = false, .zero_scale = true}); }) ==
        "BatchNorm: expected scale where zero_scale is asked for, got none");
}

TEST_CASE("With a zero scale batch norm starts as beta and its gamma learns") {
  BatchNorm norm(3, {.zero_scale = true});
  const Tensor x = random({8, 3}, 1);
  for (const double v : values(norm(x))) CHECK(v == 0);
  sum(norm(x) * x).backward();
  CHECK(values(norm.weight.grad()) != Values(3, 0.0));
}

TEST_CASE("Padding that is masked does not enter the statistics") {
  // Two sequences of 3 and 1 of 4 positions; the rest is padding.
  const Values real = {1, 10, 3, 30, 5, 50, 7, 70};
  const Tensor x = Tensor::from(Values{1, 10, 3, 30, 5, 50, 99, 99, 7, 70, 99, 99, 99, 99, 99, 99}, {2, 4, 2});
  const Tensor mask = Tensor::from(std::vector<uint8_t>{1, 1, 1, 0, 1, 0, 0, 0}, {2, 4});
  BatchNorm masked = BatchNorm(2, {.momentum = Momentum::pytorch(1), .dtype = Dtype::float64});
  BatchNorm bare = BatchNorm(2, {.momentum = Momentum::pytorch(1), .dtype = Dtype::float64});
  const Tensor y = masked.forward(x, mask), expected = bare(Tensor::from(real, {4, 2}));
  CHECK(values(masked.running_mean) == Values{4, 40});
  CHECK(values(masked.running_mean) == values(bare.running_mean));
  CHECK(values(masked.running_var) == values(bare.running_var));
  const Values all = values(y), kept = values(expected);
  for (size_t c = 0; c < 2; ++c) {
    for (size_t i = 0; i < 3; ++i) CHECK(all[i * 2 + c] == kept[i * 2 + c]);
    CHECK(all[4 * 2 + c] == kept[3 * 2 + c]);
  }
  // In eval a mask changes nothing.
  masked.eval();
  CHECK(bytes(masked.forward(x, mask)) == bytes(masked(x)));
}

TEST_CASE("A batch that is not finite in one channel is warned of by the layer's name") {
  BatchNorm norm(3);
  norm.set_name("bn2");
  const Warnings warnings;
  norm(random({4, 3}, 1));
  CHECK(warnings.seen.empty());
  const auto before = values(norm.running_mean);
  Tensor x = random({4, 3}, 2);
  x.mutable_data<float>()[4] = INFINITY;
  const Tensor y = norm(x);
  REQUIRE(warnings.seen.size() == 1);
  CHECK(warnings.seen[0] ==
        "BatchNorm \"bn2\": the batch mean or variance of 1 of 3 channels is not finite in training batch 2; their "
        "running statistics were left as they were");
  CHECK(values(norm.running_mean)[1] == before[1]);
  CHECK(values(norm.running_mean)[0] != before[0]);
  for (size_t i = 0; i < 12; ++i)
    if (i % 3 != 1) CHECK(std::isfinite(values(y)[i]));
}

TEST_CASE("A running variance that float32 cannot hold stays as it is") {
  BatchNorm norm(1);
  const Warnings warnings;
  norm(Tensor::from(std::vector<float>{-3e25f, 3e25f}, {2, 1}));
  CHECK(values(norm.running_var) == Values{1});
  CHECK(values(norm.running_mean) == Values{0});
  CHECK(warnings.seen.size() == 1);
  norm(Tensor::from(std::vector<float>{3e25f, 3.5e25f}, {2, 1}));
  CHECK(values(norm.running_var) == Values{1});
  CHECK(values(norm.running_mean)[0] == Approx(3.25e24));
}

TEST_CASE("Layer norm and group norm treat every sample by itself, in training and eval alike") {
  LayerNorm layer(6);
  GroupNorm group(3, 6);
  for (Module* m : {static_cast<Module*>(&layer), static_cast<Module*>(&group)}) {
    const Tensor x = random({5, 4, 6}, 1, Dtype::float32, -3, 9);
    const Tensor together = (*m)(x), alone = (*m)(slice(x, 0, 2, 3));
    CHECK(bytes(slice(together, 0, 2, 3)) == bytes(alone));
    m->eval();
    CHECK(bytes((*m)(x)) == bytes(together));
    CHECK(m->buffers().empty());
    CHECK(m->parameters().size() == 2);
    CHECK(m->parameters()[0].role == Role::norm);
  }
  // [1, 2, 3] along a row: +-sqrt(3/2), what one quiz page says of batch norm.
  const Values row = values(LayerNorm(3, {.eps = 0, .dtype = Dtype::float64})(Tensor::from(Values{1, 2, 3}, {1, 3})));
  CHECK(row[2] == Approx(1.224744871391589).epsilon(1e-15));
  CHECK(layer.text() == "ln");
  CHECK(GroupNorm(2, 4, {.eps = 1e-3, .shift = false}).text() == "gn:2:eps=0.001:shift=off");
  CHECK(build("ln:scale=off,gn:2:eps=0.5", {4})->text() == "ln:scale=off,gn:2:eps=0.5");
}

TEST_CASE("Layer norm and group norm say what they refuse") {
  CHECK(error_of([] { LayerNorm{Shape{}}; }) == "LayerNorm: expected one or more axes of 1 or more, got []");
  CHECK(error_of([] { LayerNorm(3, {.eps = -1}); }) == "LayerNorm: expected a finite eps >= 0, got -1");
  CHECK(error_of([] { GroupNorm(4, 6); }) == "GroupNorm: expected groups that divide the channels, got 4 and 6");
  CHECK(error_of([] { GroupNorm(2, 6, {.eps = NAN}); }) == "GroupNorm: expected a finite eps >= 0, got nan");
  LayerNorm layer(Shape{4, 3});
  layer.set_name("ln1");
  CHECK(error_of([&] {
          layer(random({2, 3}, 1));
        }) == "LayerNorm \"ln1\": expected x to end with the axes [4, 3], got x[2, 3]");
  GroupNorm group(2, 6);
  CHECK(error_of([&] { group(random({2, 3}, 1)); }) == "GroupNorm: expected x[N, ..., 6], got x[2, 3]");
}
