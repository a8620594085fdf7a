// BatchNorm, the layer: freezing, ranks, masks, warnings, folding and recalibration; and its relatives.
#include <cmath>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/autograd.h"
#include "tandem/core/error.h"
#include "tandem/data/data_loader.h"
#include "tandem/data/digits.h"
#include "tandem/layers/activation.h"
#include "tandem/layers/batch_norm.h"
#include "tandem/layers/build.h"
#include "tandem/layers/conv2d.h"
#include "tandem/layers/dense.h"
#include "tandem/layers/fold.h"
#include "tandem/layers/group_norm.h"
#include "tandem/layers/layer_norm.h"
#include "tandem/layers/pool.h"
#include "tandem/layers/recalibrate.h"
#include "tandem/optim/optimizer.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Values = std::vector<double>;

std::vector<std::vector<uint8_t>> bytes_of(Module& model) {
  std::vector<std::vector<uint8_t>> all;
  for (const auto& [name, tensor] : model.state_dict()) all.push_back(bytes(tensor));
  return all;
}

double largest_difference(const Tensor& a, const Tensor& b) {
  const Values x = values(a), y = values(b);
  REQUIRE(x.size() == y.size());
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::abs(x[i] - y[i]));
  return largest;
}

// Everything that was warned of while it lives.
struct Warnings {
  std::vector<std::string> seen;
  WarningHandler before = set_warning_handler([this](const std::string& text) { seen.push_back(text); });
  ~Warnings() { set_warning_handler(before); }
};

// A few steps, so that statistics and parameters are anything but what they start from.
void train_a_little(Module& model, const Shape& batch, int steps = 5) {
  SGD sgd(model.parameters(), {.lr = 0.1});
  for (int i = 0; i < steps; ++i) {
    sgd.zero_grad();
    const Tensor y = model(random(batch, static_cast<uint64_t>(i), model.parameters()[0].tensor.dtype(), -1, 3));
    sum(y * y).backward();
    clip_grad_norm(model.parameters(), 1);
    sgd.step();
  }
}

}  // namespace

TEST_CASE("A frozen batch norm normalises as in eval, moves nothing, and stays frozen") {
  BatchNorm norm(3);
  train_a_little(norm, {16, 3});
  norm.eval();
  const Tensor x = random({7, 3}, 9), expected = norm(x);
  norm.train();
  norm.freeze();
  CHECK(norm.is_frozen());
  const auto before = bytes_of(norm);
  for (int i = 0; i < 100; ++i) {
    norm.train();
    const Tensor y = norm(x);
    CHECK_FALSE(y.requires_grad());
    if (i == 0) CHECK(bytes(y) == bytes(expected));
  }
  CHECK(bytes_of(norm) == before);
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
  CHECK(bytes_of(norm) != before);
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

TEST_CASE("A folded model gives the outputs of the model in eval") {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64}) {
    Sequential model(3);
    model.add(Conv2d(2, 6, {.kernel = 3, .stride = 2, .padding = 1, .groups = 2, .dtype = dtype}));
    model.add(BatchNorm(6, {.dtype = dtype}));
    model.add(Conv2d(6, 4, {.kernel = {1, 3}, .bias = false, .dtype = dtype}));
    model.add(BatchNorm(4, {.eps = 1e-3, .scale = false, .dtype = dtype}));
    model.add<Flatten>();
    auto& inner = model.add<Sequential>();
    inner.add(Dense(4 * 4 * 2, 8, {.bias = false, .dtype = dtype}));
    inner.add(BatchNorm(8, {.shift = false, .dtype = dtype}));
    model.add(BatchNorm(8, {.dtype = dtype}));  // follows no Dense or Conv2d: stays
    model.add(Dense(8, 3, {.dtype = dtype}));
    model.add(BatchNorm(3, {.track_running_stats = false, .dtype = dtype}));  // nothing to fold: stays
    train_a_little(model, {6, 8, 8, 2});
    model.eval();
    const auto before = bytes_of(model);
    const auto folded = fold(model);
    CHECK(bytes_of(model) == before);
    CHECK(folded->size() == model.size() - 2);
    CHECK_FALSE(folded->is_training());
    const Tensor x = random({5, 8, 8, 2}, 77, dtype);
    CHECK(largest_difference((*folded)(x), model(x)) < (dtype == Dtype::float32 ? 1e-5 : 1e-13));
    std::string names;
    for (const auto& [name, child] : folded->children()) names += name + " ";
    CHECK(names == "conv1 conv2 flatten1 sequential1 bn3 dense1 bn4 ");
  }
}

TEST_CASE("A reference network folds to its outputs after training") {
  const auto model = build(model_text("w3", true).layers, {28, 28, 1}, {.seed = 5});
  train_a_little(*model, {4, 28, 28, 1}, 3);
  model->eval();
  const auto folded = fold(*model);
  for (const auto& [name, child] : folded->children()) CHECK(child->kind() != "bn");
  const Tensor x = random({3, 28, 28, 1}, 3, Dtype::float32, 0, 1);
  CHECK(largest_difference((*folded)(x), (*model)(x)) < 1e-5);
}

TEST_CASE("Recalibrated statistics are those of all values together") {
  const Dataset data = make_digits(70, 3);
  const DataLoader loader(data, {.batch_size = 20, .shuffle = false, .last_batch = LastBatch::keep});
  Sequential model(1);
  model.add<Flatten>();
  model.add<BatchNorm>(28 * 28);
  model.add<Dense>(28 * 28, 5);
  auto& second = model.add(BatchNorm(5, BatchNormLayerOptions::keras()));
  model.add<Dropout>(0.5);
  auto& frozen = model.add<BatchNorm>(5);
  frozen.freeze();
  model[1].eval();  // modes need not agree
  const Values weight = values(second.weight), still = values(frozen.running_var);
  recalibrate(model, loader);

  const Moments all = moments(DataLoader(data, {.batch_size = 70, .shuffle = false}).batch(0, 0).x.reshape({70, 784}));
  const auto& first = dynamic_cast<BatchNorm&>(model[1]);
  for (size_t i = 0; i < 784; ++i) {
    CHECK(values(first.running_mean)[i] == Approx(all.mean[i]).epsilon(1e-6));
    CHECK(values(first.running_var)[i] == Approx(all.m2[i] / 69).epsilon(1e-6));
  }
  CHECK(values(first.num_batches_tracked) == Values{4});
  // The layer above saw each batch normalised by itself; Keras' convention divides by n.
  Moments seen;
  for (int64_t i = 0; i < loader.batches(); ++i) {
    BatchNorm alone(784);
    seen = merge(seen, moments(model[2](alone(loader.batch(0, i).x.reshape({loader.batch(0, i).x.dim(0), 784})))));
  }
  for (size_t i = 0; i < 5; ++i) {
    CHECK(values(second.running_mean)[i] == Approx(seen.mean[i]).epsilon(1e-5).margin(1e-6));
    CHECK(values(second.running_var)[i] == Approx(seen.m2[i] / 70).epsilon(1e-5));
  }
  CHECK(values(second.weight) == weight);
  CHECK(values(frozen.running_var) == still);
  CHECK(model.is_training());
  CHECK_FALSE(model[1].is_training());
  CHECK(model[4].is_training());
}

TEST_CASE("Recalibration refuses what it cannot do and changes nothing") {
  Sequential plain;
  plain.add<Dense>(3, 2);
  const auto batch = [](int64_t i) { return random({i == 0 ? 4 : 1, 3}, 1); };
  CHECK(error_of([&] { recalibrate(plain, 1, batch); }) ==
        "recalibrate: expected a batch norm with running statistics to set, found none");
  Sequential model;
  model.add<Dense>(3, 2);
  model.add<BatchNorm>(2);
  const auto before = bytes_of(model);
  CHECK(error_of([&] { recalibrate(model, 0, batch); }) == "recalibrate: expected at least 1 batch, got 0");
  CHECK_THROWS_AS(recalibrate(model, 2, batch), ShapeError);  // the second batch is of one row
  CHECK(bytes_of(model) == before);
  CHECK(model.is_training());
  CHECK(model[1].is_training());
  CHECK(values(model(random({4, 3}, 2))).size() == 8);  // it no longer gathers
  CHECK(bytes_of(model) != before);
}

TEST_CASE("Moments merge to those of the whole, however it is cut") {
  const Tensor x = random({300, 7}, 1, Dtype::float64, 1e6, 1e6 + 1);
  const Moments whole = moments(x);
  for (const int64_t cut : {1, 2, 150, 299}) {
    const Moments parts = merge(moments(slice(x, 0, 0, cut)), moments(slice(x, 0, cut, 300)));
    CHECK(parts.count == 300);
    for (size_t c = 0; c < 7; ++c) {
      CHECK(parts.mean[c] == Approx(whole.mean[c]).epsilon(1e-15));
      CHECK(parts.m2[c] == Approx(whole.m2[c]).epsilon(1e-9));
    }
  }
  CHECK(merge({}, whole).mean == whole.mean);
  CHECK(merge(whole, {}).m2 == whole.m2);
  CHECK(error_of([&] {
          merge(whole, moments(random({3, 2}, 1)));
        }) == "merge: expected parts of as many channels, got 7 and 2");
  CHECK(error_of([] { moments(random({3}, 1)); }) == "moments: expected at least 2 axes, got x[3]");
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
