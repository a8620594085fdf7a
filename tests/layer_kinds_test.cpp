// The layers one by one: what they refuse and how they say it, batch norm's conventions, dropout's masks.
#include <cmath>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"
#include "tandem/layers/activation.h"
#include "tandem/layers/batch_norm.h"
#include "tandem/layers/conv2d.h"
#include "tandem/layers/dense.h"
#include "tandem/layers/pool.h"

using namespace tandem;
using namespace tandem::test;

namespace {

// "conv1.weight conv1.bias"
std::string names_of(const StateDict& state) {
  std::string names;
  for (const auto& [name, tensor] : state) names += (names.empty() ? "" : " ") + name;
  return names;
}

std::vector<std::vector<uint8_t>> bytes_of(const StateDict& state) {
  std::vector<std::vector<uint8_t>> all;
  for (const auto& [name, tensor] : state) all.push_back(bytes(tensor));
  return all;
}

Tensor column(const std::vector<double>& x) { return Tensor::from(x, {static_cast<int64_t>(x.size()), 1}); }

}  // namespace

TEST_CASE("Every layer refuses a shape that does not fit, with its name and the way out") {
  const auto refused = [](Module&& layer, const char* name, const Shape& shape, const std::string& error) {
    layer.set_name(name);
    INFO(error);
    CHECK(error_of([&] { layer(ones(shape)); }) == error);
    CHECK_THROWS_AS(layer(ones(shape)), ShapeError);
    CHECK(error_of([&] { layer.eval()(ones(shape)); }) == error);
    CHECK(error_of([&] { layer.output_shape(shape); }) == error);
  };
  refused(Dense(256, 10), "dense2", {64, 128}, "Dense \"dense2\": expected x[N, 256], got x[64, 128] (256 vs 128)");
  refused(Dense(256, 10), "", {64, 128}, "Dense: expected x[N, 256], got x[64, 128] (256 vs 128)");
  refused(Dense(256, 10), "dense1", {64, 8, 8, 4},
          "Dense \"dense1\": expected x[N, 256], got x[64, 8, 8, 4] (2 axes vs 4); put a Flatten before it");
  refused(Conv2d(3, 8), "conv1", {10, 28, 28, 1},
          "Conv2d \"conv1\": expected x[N, H, W, 3], got x[10, 28, 28, 1] (3 vs 1 channels)");
  refused(Conv2d(3, 8), "conv1", {10, 3, 28, 28},
          "Conv2d \"conv1\": expected x[N, H, W, 3], got x[10, 3, 28, 28] (3 vs 28 channels); axis 1 fits: images are "
          "channels-last here, permute(x, {0, 2, 3, 1})");
  refused(Conv2d(3, 8), "conv1", {10, 784}, "Conv2d \"conv1\": expected x[N, H, W, 3], got x[10, 784] (4 axes vs 2)");
  refused(Conv2d(1, 8, {.kernel = 3, .dilation = 2}), "conv1", {10, 9, 4, 1},
          "Conv2d \"conv1\": expected an input of at least 5 along W for a window of 5 with padding 0, got 4");
  refused(MaxPool2d(), "maxpool1", {10, 784}, "MaxPool2d \"maxpool1\": expected x[N, H, W, C], got x[10, 784]");
  refused(AvgPool2d({.kernel = 5}), "avgpool1", {10, 4, 8, 1},
          "AvgPool2d \"avgpool1\": expected an input of at least 5 along H for a window of 5 with padding 0, got 4");
  refused(GlobalAvgPool(), "gap1", {10, 4},
          "GlobalAvgPool \"gap1\": expected x[N, H, W, C], got x[10, 4] (4 axes vs 2)");
  refused(Flatten(), "flatten1", {}, "Flatten \"flatten1\": expected x[N, ...], got a scalar");

  refused(
      BatchNorm(3, {.channel_axis = 1}), "bn1", {10, 5, 32, 32},
      "BatchNorm \"bn1\": built for 3 channels, but axis 1 of x[10, 5, 32, 32] has 5; build it with 5, or change the "
      "layer before it");
  refused(BatchNorm(3), "bn1", {10, 3, 8, 8},
          "BatchNorm \"bn1\": built for 3 channels, but the last axis of x[10, 3, 8, 8] has 8; axis 1 has 3: set "
          "channel_axis = 1 if the data are channels-first");
  refused(BatchNorm(3, {.channel_axis = 1}), "bn1", {32, 28, 28, 3},
          "BatchNorm \"bn1\": built for 3 channels, but axis 1 of x[32, 28, 28, 3] has 28; the last axis has 3: set "
          "channel_axis = -1 if the data are channels-last");
  refused(
      BatchNorm(3, {.channel_axis = 2}), "bn1", {10, 3},  // no such axis
      "BatchNorm \"bn1\": built for 3 channels, but x[10, 3] has no axis 2; the last axis has 3: set channel_axis = -1 "
      "if the data are channels-last");
  refused(
      BatchNorm(3), "bn1", {10, 4},
      "BatchNorm \"bn1\": built for 3 channels, but the last axis of x[10, 4] has 4; build it with 4, or change the "
      "layer before it");
  refused(BatchNorm(3), "bn1", {3}, "BatchNorm \"bn1\": expected x of 2 to 5 axes, got x[3] (1)");
}

TEST_CASE("Every layer refuses a dtype that is not its own, with its name") {
  const auto refused = [](Module&& layer, const Shape& shape, Dtype dtype, const std::string& error) {
    layer.set_name("it");
    CHECK(error_of([&] { layer(ones(shape, {dtype})); }) == error);
    CHECK_THROWS_AS(layer(ones(shape, {dtype})), ValueError);
  };
  const auto mixed = [&](Module&& layer, const Shape& shape, const std::string& label, const std::string& own) {
    refused(std::move(layer), shape, Dtype::float64,
            label + ": expected one dtype, got x" + to_string(shape) + " of float64 and " + own +
                " of float32; convert one with to()");
  };
  mixed(Dense(2, 3), {4, 2}, "Dense \"it\": linear", "weight[3, 2]");
  mixed(Conv2d(2, 3), {4, 5, 5, 2}, "Conv2d \"it\": conv2d", "weight[3, 3, 3, 2]");
  mixed(BatchNorm(2), {4, 2}, "BatchNorm \"it\": batch_norm", "gamma[2]");
  mixed(BatchNorm(2, {.scale = false, .shift = false}), {4, 2}, "BatchNorm \"it\": batch_norm", "running_mean[2]");
  const auto integers = [&](Module&& layer, const Shape& shape, const std::string& label) {
    refused(std::move(layer), shape, Dtype::int32,
            label + ": expected x of float32 or float64, got x" + to_string(shape) +
                " of int32; convert it with to()");
  };
  integers(Dense(2, 3), {4, 2}, "Dense \"it\": linear");
  integers(ReLU(), {4, 2}, "ReLU \"it\": relu");
  integers(Sigmoid(), {4, 2}, "Sigmoid \"it\": sigmoid");
  integers(Tanh(), {4, 2}, "Tanh \"it\": tanh");
  integers(Dropout(), {4, 2}, "Dropout \"it\": dropout");
  integers(MaxPool2d(), {4, 2, 2, 1}, "MaxPool2d \"it\": max_pool2d");
  integers(AvgPool2d(), {4, 2, 2, 1}, "AvgPool2d \"it\": avg_pool2d");
  integers(GlobalAvgPool(), {4, 2, 2, 1}, "GlobalAvgPool \"it\": mean");
}

TEST_CASE("Layers refuse options that make no sense, with the value") {
  CHECK(error_of([] { Dense(0, 10); }) == "Dense: expected sizes >= 1, got in = 0, out = 10");
  CHECK(error_of([] { Conv2d(3, -1); }) == "Conv2d: expected channels >= 1, got in = 3, out = -1");
  CHECK(error_of([] { Conv2d(3, 8, {.stride = 0}); }) ==
        "Conv2d: expected kernel, stride and dilation in [1, 1000000] and padding in [0, 1000000], got kernel 3, "
        "stride 0, dilation 1, padding 0");
  CHECK_THROWS_AS(Conv2d(3, 8, {.dilation = INT64_MAX}), ValueError);
  CHECK_THROWS_AS(Conv2d(3, 8, {.padding = INT64_MAX}), ValueError);
  CHECK_THROWS_AS(MaxPool2d({.kernel = INT64_MAX, .padding = INT64_MAX}), ValueError);
  CHECK(error_of([] { Conv2d(3, 8, {.groups = 2}); }) ==
        "Conv2d: groups must divide both channel counts, got 2 for in = 3, out = 8");
  CHECK(error_of([] { Dropout(1.0); }) == "Dropout: expected p in [0, 1), got 1");
  CHECK(error_of([] { Dropout(std::nan("")); }) == "Dropout: expected p in [0, 1), got nan");
  CHECK(error_of([] { MaxPool2d({.kernel = 2, .padding = 2}); }) ==
        "MaxPool2d: expected a padding of at most half the kernel, got 2 for a kernel of 2");
  CHECK(error_of([] { AvgPool2d({.dilation = 2}); }) == "AvgPool2d: expected dilation 1, got 2");
  CHECK(error_of([] { BatchNorm(0); }) == "BatchNorm: expected at least 1 channel, got 0");
  CHECK(error_of([] { BatchNorm(3, {.eps = -1e-5}); }) == "BatchNorm: expected a finite eps >= 0, got -1e-05");
  CHECK(error_of([] { BatchNorm(3, {.eps = std::nan("")}); }) == "BatchNorm: expected a finite eps >= 0, got nan");
  CHECK(error_of([] { BatchNorm(3, {.momentum = {1.5}}); }) ==
        "BatchNorm: expected a momentum in [0, 1], got 1.5; PyTorch's 0.1 is Keras' 0.9");
  CHECK(error_of([] { BatchNorm(3, {.channel_axis = 0}); }) ==
        "BatchNorm: expected channel_axis -1 (the last) or 1 to 4, got 0");
  CHECK_THROWS_AS(BatchNorm::keras(3, 2.0), ValueError);
  CHECK(BatchNorm(3, {.eps = 0}).text() == "bn:eps=0");
}

TEST_CASE("Batch norm refuses to train on one value per channel and changes nothing") {
  BatchNorm bn(10);
  bn.set_name("bn1");
  bn(random({4, 10}, 1));
  const auto before = bytes_of(bn.state_dict());
  CHECK(error_of([&] {
          bn(ones({1, 10}));
        }) ==
        "BatchNorm \"bn1\": training needs at least 2 values per channel, x[1, 10] has 1; use a larger batch, "
        "--last-batch drop|merge, or eval(). Nothing was updated.");
  CHECK_THROWS_AS(bn(ones({1, 1, 1, 10})), ShapeError);
  CHECK_THROWS_AS(bn(ones({0, 10})), ShapeError);
  CHECK_THROWS_AS(bn(ones({4, 9})), ShapeError);
  CHECK_THROWS_AS(bn(ones({4, 10}, {Dtype::float64})), ValueError);
  CHECK(bytes_of(bn.state_dict()) == before);
  bn(ones({1, 2, 1, 10}));   // two values per channel
  bn.eval()(ones({1, 10}));  // eval takes any batch
  CHECK(bn.num_batches_tracked.item() == 2);
}

TEST_CASE("Batch norm without running statistics says why eval needs two values per channel") {
  BatchNorm bn(3, {.track_running_stats = false});
  CHECK(error_of([&] {
          bn.eval()(ones({1, 3}));
        }) ==
        "BatchNorm: eval without running statistics needs at least 2 values per channel, x[1, 3] has 1; use a larger "
        "batch, or track_running_stats");
  CHECK(bn.state_dict().size() == 2);
  CHECK(values(bn(column({1, 3}).to(Dtype::float32).reshape({2, 1}) * ones({1, 3})))[0] == Approx(-1).epsilon(1e-4));
}

TEST_CASE("Keras' batch norm gives beta for one value per channel, and still refuses none") {
  BatchNorm bn = BatchNorm::keras(2);
  bn.bias.copy_from(Tensor::from<float>({3, -1}, {2}));
  CHECK(values(bn(random({1, 2}, 1))) == std::vector<double>{3, -1});
  CHECK(error_of([&] {
          bn(ones({0, 2}));
        }) ==
        "BatchNorm: training needs at least 1 value per channel, x[0, 2] has 0; use a larger batch, --last-batch "
        "drop|merge, or eval(). Nothing was updated.");
}

TEST_CASE("The batch norm conventions move the running statistics as PyTorch and Keras do") {
  // x = {1, 3}: mean 2, biased variance 1, unbiased 2.
  const auto after = [](BatchNorm bn, std::vector<double> x) {
    bn.to(Dtype::float64);
    bn(column(x));
    return std::pair(bn.running_mean.item(), bn.running_var.item());
  };
  const auto torch = after(BatchNorm(1), {1, 3});
  CHECK(torch.first == Approx(0.1 * 2).epsilon(1e-15));
  CHECK(torch.second == Approx(0.9 * 1 + 0.1 * 2).epsilon(1e-15));
  const auto fast = after(BatchNorm::pytorch(1, 1.0), {1, 3});
  CHECK(fast.first == 2);
  CHECK(fast.second == 2);
  const auto keras = after(BatchNorm::keras(1), {1, 3});
  CHECK(keras.first == Approx(0.01 * 2).epsilon(1e-15));
  CHECK(keras.second == Approx(0.99 * 1 + 0.01 * 1).epsilon(1e-15));

  BatchNorm average(1, {.momentum = Momentum::cumulative(), .dtype = Dtype::float64});
  average(column({1, 3}));
  average(column({5, 9}));  // mean 7, unbiased variance 8
  CHECK(average.running_mean.item() == Approx(4.5).epsilon(1e-15));
  CHECK(average.running_var.item() == Approx(5).epsilon(1e-15));
  CHECK(average.num_batches_tracked.item() == 2);
}

TEST_CASE("Batch norm in eval uses its running statistics and changes none") {
  BatchNorm bn(1, {.dtype = Dtype::float64});
  bn(column({1, 3}));
  const auto before = bytes_of(bn.state_dict());
  const std::vector<double> y = values(bn.eval()(column({0.2, 5})));
  CHECK(y[0] == Approx(0).margin(1e-12));
  CHECK(y[1] == Approx((5 - 0.2) / std::sqrt(1.1 + 1e-5)).epsilon(1e-12));
  CHECK(bytes_of(bn.state_dict()) == before);
}

TEST_CASE("Batch norm without scale or shift has no such parameter") {
  BatchNorm bn(4, {.scale = false});
  CHECK(names_of(bn.state_dict()) == "bias running_mean running_var num_batches_tracked");
  CHECK(!bn.weight.defined());
  CHECK(bn(random({5, 4}, 1)).shape() == Shape{5, 4});
}

TEST_CASE("Dropout zeroes its share, scales the rest, and does nothing in eval") {
  Dropout dropout(0.25);
  const Tensor x = ones({100'000});
  double zeroed = 0;
  for (const double y : values(dropout(x))) {
    if (y == 0)
      ++zeroed;
    else
      CHECK(y == Approx(1 / 0.75).epsilon(1e-6));
  }
  CHECK(std::fabs(zeroed / 100'000 - 0.25) < 4 * std::sqrt(0.25 * 0.75 / 100'000));
  CHECK(bytes(dropout.eval()(x)) == bytes(x));
}

TEST_CASE("Dropout masks depend on seed, name and call alone") {
  const Tensor x = ones({1000});
  const auto made = [](uint64_t seed, const char* name) {
    auto dropout = std::make_unique<Dropout>(0.5);
    dropout->set_name(name);
    dropout->init(seed);
    return dropout;
  };
  const auto a = made(1, "dropout1"), same = made(1, "dropout1");
  const auto first = bytes((*a)(x)), second = bytes((*a)(x));
  CHECK(first != second);
  CHECK(bytes((*same)(x)) == first);
  same->eval()(x);  // evaluating moves nothing
  same->train();
  const auto copy = same->clone();
  CHECK(bytes((*same)(x)) == second);
  CHECK(bytes((*copy)(x)) == second);  // a clone goes on where its original was
  a->init(1);
  CHECK(bytes((*a)(x)) == first);
  CHECK(bytes((*made(2, "dropout1"))(x)) != first);
  CHECK(bytes((*made(1, "dropout2"))(x)) != first);
}

TEST_CASE("Dropout's gradient passes through the same mask") {
  Dropout dropout(0.5);
  Tensor x = ones({200}).set_requires_grad(true);
  const Tensor y = dropout(x);
  dropout(x);  // a later call must not change the mask of the earlier
  sum(y).backward();
  CHECK(values(x.grad()) == values(y));
}

TEST_CASE("output_shape tells the shape of forward's result") {
  const auto check = [](Module&& layer, const Shape& x) {
    CHECK(layer.output_shape(x) == layer(random(x, 1)).shape());
  };
  for (const int64_t kernel : {1, 2, 3}) {
    for (const int64_t stride : {1, 2, 3}) {
      for (const int64_t padding : {0, 1}) {
        for (const Shape& x : {Shape{2, 7, 8, 2}, Shape{1, 5, 9, 2}}) {
          check(Conv2d(2, 4, {.kernel = kernel, .stride = stride, .padding = padding, .dilation = 2, .groups = 2}), x);
          if (2 * padding > kernel) continue;
          for (const bool ceil : {false, true}) {
            check(MaxPool2d({.kernel = kernel, .stride = stride, .padding = padding, .ceil_mode = ceil}), x);
            check(AvgPool2d({.kernel = kernel, .stride = stride, .padding = padding, .ceil_mode = ceil}), x);
          }
        }
      }
    }
  }
  check(MaxPool2d({.kernel = {3, 1}, .stride = {1, 2}, .padding = {1, 0}}), {2, 6, 7, 3});
  check(Conv2d(2, 4, {.kernel = {3, 1}, .stride = {1, 2}, .padding = {2, 0}}), {2, 6, 7, 2});
  check(Dense(3, 5), {4, 3});
  check(Flatten(), {4, 3, 2, 1});
  check(Flatten(), {4});
  check(GlobalAvgPool(), {4, 3, 2, 5});
  check(BatchNorm(3, {.channel_axis = 1}), {4, 3, 2});
}
