// Batch norm after training: folded away, or its running statistics taken anew; and the moments behind that.
#include <cmath>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"
#include "tandem/data/data_loader.h"
#include "tandem/data/digits.h"
#include "tandem/layers/activation.h"
#include "tandem/layers/batch_norm.h"
#include "tandem/layers/build.h"
#include "tandem/layers/conv2d.h"
#include "tandem/layers/dense.h"
#include "tandem/layers/fold.h"
#include "tandem/layers/pool.h"
#include "tandem/layers/recalibrate.h"
#include "training.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Values = std::vector<double>;

double largest_difference(const Tensor& a, const Tensor& b) {
  const Values x = values(a), y = values(b);
  REQUIRE(x.size() == y.size());
  double largest = 0;
  for (size_t i = 0; i < x.size(); ++i) largest = std::max(largest, std::abs(x[i] - y[i]));
  return largest;
}

}  // namespace

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
    train_on_noise(model, {6, 8, 8, 2});
    model.eval();
    const auto before = state_bytes(model);
    const auto folded = fold(model);
    CHECK(state_bytes(model) == before);
    CHECK(folded->size() == model.size() - 2);
    CHECK_FALSE(folded->is_training());
    const Tensor x = random({5, 8, 8, 2}, 77, dtype);
    CHECK(largest_difference((*folded)(x), model(x)) < (dtype == Dtype::float32 ? 1e-5 : 1e-13));
    std::string names;
    for (const auto& [name, child] : folded->children()) names += name + " ";
    CHECK(names == "conv1 conv2 flatten1 sequential1 bn3 dense1 bn4 ");
  }
}

TEST_CASE("Only a batch norm of the layer's own outputs is folded, into a layer that is no other's") {
  struct Residual : Sequential {  // computes something else than its layers in turn
    Tensor forward(const Tensor& x) override { return Sequential::forward(x) + x; }
    std::unique_ptr<Module> clone() const override {
      auto copy = std::make_unique<Residual>();
      copy->append((*this)[0].clone(), "", true);
      copy->append((*this)[1].clone(), "", true);
      return copy;
    }
  };
  Sequential model(1);
  auto& block = model.add<Residual>();
  block.add<Dense>(4, 4);
  block.add<BatchNorm>(4);
  model.add<Dense>(4, 6);
  model.add<BatchNorm>(3, BatchNormLayerOptions{});  // not the 6 outputs: refused by forward, left alone here
  const auto folded = fold(model);
  CHECK(folded->size() == 3);
  model.eval();
  const Tensor x = random({5, 4}, 2);
  CHECK(bytes((*folded)[0](x)) == bytes(model[0](x)));

  // Where variance and eps are both 0, what the layer gives is beta.
  Sequential flat(1);
  flat.add<Dense>(2, 1);
  auto& norm = flat.add(BatchNorm(1, {.eps = 0}));
  norm.running_var.fill(0);
  norm.bias.copy_from(full({1}, 2.5));
  flat.eval();
  CHECK(values((*fold(flat))(random({3, 2}, 1))) == Values{2.5, 2.5, 2.5});
  CHECK(values(flat(random({3, 2}, 1))) == Values{2.5, 2.5, 2.5});
}

TEST_CASE("A reference network folds to its outputs after training") {
  const auto model = build(model_text("w3", true).layers, {28, 28, 1}, {.seed = 5});
  train_on_noise(*model, {4, 28, 28, 1}, 3);
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
    CHECK(values(first.running_mean)[i] == Approx(all.mean[i]).epsilon(0).margin(3e-7 * std::sqrt(all.m2[i] / 69)));
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
  const auto before = state_bytes(model);
  CHECK(error_of([&] { recalibrate(model, 0, batch); }) == "recalibrate: expected at least 1 batch, got 0");
  CHECK(error_of([&] { recalibrate(model, 2, batch); }) ==  // the second batch is of one row
        "BatchNorm \"bn1\": batch_norm: training needs at least 2 values per channel, x[1, 2] has 1; use a larger "
        "batch or "
        "eval(). Nothing was updated.");
  CHECK(state_bytes(model) == before);
  CHECK(model.is_training());
  CHECK(model[1].is_training());
  CHECK(values(model(random({4, 3}, 2))).size() == 8);  // it no longer gathers
  CHECK(state_bytes(model) != before);
}

TEST_CASE("Recalibration leaves a channel that was not finite alone, and names the layer") {
  BatchNorm norm(2);
  norm.set_name("bn1");
  const Warnings warnings;
  recalibrate(norm, 2, [](int64_t i) {
    Tensor x = random({4, 2}, static_cast<uint64_t>(i));
    if (i == 1) x.mutable_data<float>()[2] = NAN;
    return x;
  });
  REQUIRE(warnings.seen.size() == 1);
  CHECK(warnings.seen[0] ==
        "BatchNorm \"bn1\": the mean or variance of 1 of 2 channels is not finite over the data; the running ones were "
        "left as they were");
  CHECK(values(norm.running_mean)[0] == 0);
  CHECK(values(norm.running_mean)[1] != 0);
  CHECK(values(norm.running_var)[0] == 1);
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

