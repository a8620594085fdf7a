// Models from text and from files.
#include "tandem/layers/build.h"

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"
#include "tandem/core/file.h"
#include "tandem/core/safetensors.h"
#include "tandem/core/storage.h"
#include "tandem/layers/activation.h"
#include "tandem/layers/batch_norm.h"
#include "tandem/layers/conv2d.h"
#include "tandem/layers/dense.h"
#include "tandem/layers/pool.h"

using namespace tandem;
using namespace tandem::test;

namespace {

int64_t parameter_count(const std::string& name, bool batch_norm) {
  const ModelText text = model_text(name, batch_norm);
  int64_t count = 0;
  for (const Parameter& p : build(text.layers, {28, 28, 1})->parameters()) count += p.tensor.numel();
  return count;
}

bool same_state(Module& a, Module& b) {
  const StateDict x = a.state_dict(), y = b.state_dict();
  if (x.size() != y.size()) return false;
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i].first != y[i].first || x[i].second.shape() != y[i].second.shape()) return false;
    if (bytes(x[i].second) != bytes(y[i].second)) return false;
  }
  return true;
}

// A layer made in code, described as text, built from that text for inputs of shape x: it must be the same.
void check_round_trip(std::unique_ptr<Module> layer, const std::string& text, const Shape& x) {
  INFO(text);
  CHECK(layer->text() == text);
  Sequential model(3);
  Module& placed = model.append(std::move(layer));
  const auto built = build(text, x, {.seed = 3});
  CHECK(built->text() == text);
  CHECK((*built)[0].kind() == placed.kind());
  CHECK(same_state(*built, model));
  const Tensor input = random(x.insert(0, 4), 1);
  CHECK(bytes((*built)(input)) == bytes(model(input)));
  CHECK(same_state(*built, model));
  CHECK(bytes(built->eval()(input)) == bytes(model.eval()(input)));
}

}  // namespace

TEST_CASE("A text builds its layers, in order, with shapes worked out") {
  const auto model =
      build("conv:8:k=5:s=2:p=2, relu, maxpool:2, dense:16, bn, tanh, dropout:0.25, dense:10", {28, 28, 1});
  CHECK(model->text() == "conv:8:k=5:s=2:p=2,relu,maxpool:2,flatten,dense:16:bias=off,bn,tanh,dropout:0.25,dense:10");
  CHECK(model->output_shape({7, 28, 28, 1}) == Shape{7, 10});
  CHECK((*model)(ones({2, 28, 28, 1})).shape() == Shape{2, 10});
}

TEST_CASE("A bias is dropped before a batch norm, unless asked for, and only there") {
  const auto has_bias = [](const std::string& text) {
    const auto model = build(text, {8, 8, 1});
    return model->state_dict()[1].first.find(".bias") != std::string::npos;
  };
  CHECK(has_bias("conv:4"));
  CHECK(!has_bias("conv:4,bn"));
  CHECK(has_bias("conv:4:bias=on,bn"));
  CHECK(has_bias("conv:4,relu,bn"));
  CHECK(!has_bias("conv:4:bias=off,relu,bn"));
  CHECK(!has_bias("dense:4,bn"));
  // The text of a model says so, and builds the same again.
  CHECK(build("dense:4:bias=on,bn", {3})->text() == "dense:4:bias=on,bn");
  CHECK(build("dense:4,bn", {3})->text() == "dense:4:bias=off,bn");
}

TEST_CASE("Every layer and option in code becomes the text that builds it again") {
  const Shape image{9, 9, 4}, row{6};
  const auto dense = [](DenseOptions o) { return std::make_unique<Dense>(6, 3, o); };
  check_round_trip(dense({}), "dense:3", row);
  check_round_trip(dense({.bias = false}), "dense:3:bias=off", row);
  check_round_trip(dense({.init = Init::normal(0, 0.1)}), "dense:3:init=normal(0, 0.1)", row);
  check_round_trip(dense({.bias = false, .init = Init::glorot_uniform()}), "dense:3:bias=off:init=glorot_uniform", row);
  const auto conv = [](Conv2dLayerOptions o) { return std::make_unique<Conv2d>(4, 8, o); };
  check_round_trip(conv({}), "conv:8", image);
  check_round_trip(
      conv({.kernel = 2, .stride = 2, .padding = 1, .dilation = 2, .groups = 4, .bias = false, .init = Init::ones()}),
      "conv:8:k=2:s=2:p=1:d=2:g=4:bias=off:init=ones", image);
  check_round_trip(conv({.kernel = {1, 3}, .stride = {2, 1}, .padding = {0, 1}}), "conv:8:k=1x3:s=2x1:p=0x1", image);
  const auto bn = [](BatchNormLayerOptions o) { return std::make_unique<BatchNorm>(o.channel_axis == 1 ? 9 : 4, o); };
  check_round_trip(bn({}), "bn", image);
  check_round_trip(bn({.eps = 1e-3}), "bn:eps=0.001", image);
  check_round_trip(bn({.momentum = Momentum::pytorch(0.25)}), "bn:momentum=pytorch(0.25)", image);
  check_round_trip(bn({.momentum = Momentum::keras(0.7)}), "bn:momentum=pytorch(0.30000000000000004)", image);
  check_round_trip(bn({.momentum = Momentum::cumulative()}), "bn:momentum=cumulative", image);
  check_round_trip(bn({.unbiased_running_var = false}), "bn:unbiased=off", image);
  check_round_trip(bn({.scale = false}), "bn:scale=off", image);
  check_round_trip(bn({.shift = false}), "bn:shift=off", image);
  check_round_trip(bn({.track_running_stats = false}), "bn:track=off", image);
  check_round_trip(bn({.channel_axis = 1}), "bn:axis=1", image);
  check_round_trip(bn({.allow_one_value = true}), "bn:one_value=on", image);
  check_round_trip(bn({.zero_scale = true}), "bn:zero", image);
  check_round_trip(bn({.frozen = true}), "bn:frozen", image);
  check_round_trip(bn({.min_rank = 4, .max_rank = 4}), "bn:rank=4", image);
  check_round_trip(bn({.min_rank = 2, .max_rank = 4}), "bn:rank=2-4", image);
  check_round_trip(bn(BatchNormLayerOptions::keras()), "bn:keras", image);
  check_round_trip(bn(BatchNormLayerOptions::keras(0.9)), "bn:keras:momentum=0.9", image);
  check_round_trip(std::make_unique<ReLU>(), "relu", image);
  check_round_trip(std::make_unique<Sigmoid>(), "sigmoid", image);
  check_round_trip(std::make_unique<Tanh>(), "tanh", image);
  check_round_trip(std::make_unique<Dropout>(0.125), "dropout:0.125", image);
  check_round_trip(std::make_unique<Flatten>(), "flatten", image);
  check_round_trip(std::make_unique<GlobalAvgPool>(), "gap", image);
  check_round_trip(std::make_unique<MaxPool2d>(), "maxpool:2", image);
  check_round_trip(std::make_unique<MaxPool2d>(
                       Pool2dOptions{.kernel = 3, .stride = 2, .padding = 1, .dilation = 2, .ceil_mode = true}),
                   "maxpool:3:s=2:p=1:d=2:ceil", image);
  check_round_trip(std::make_unique<AvgPool2d>(Pool2dOptions{.kernel = 3, .padding = 1, .count_padding = false}),
                   "avgpool:3:p=1:count_padding=off", image);
  check_round_trip(std::make_unique<AvgPool2d>(Pool2dOptions{
                       .kernel = {2, 3}, .stride = {1, 2}, .padding = {0, 1}}),
                   "avgpool:2x3:s=1x2:p=0x1", image);
}

TEST_CASE("A momentum is read in the layer's convention, or in the one it names") {
  const auto text = [](const std::string& layer) { return build(layer, {3})->text(); };
  CHECK(text("bn:momentum=0.2") == "bn:momentum=pytorch(0.2)");
  CHECK(text("bn:momentum=keras(0.75)") == "bn:momentum=pytorch(0.25)");
  CHECK(text("bn:keras:momentum=0.75") == "bn:keras:momentum=0.75");
  CHECK(text("bn:keras:momentum=pytorch(0.25)") == "bn:keras:momentum=0.75");
  CHECK(text("bn:momentum=0.1:eps=1e-5:axis=-1:scale=on:keras=off") == "bn");
}

TEST_CASE("A model that text cannot describe has none") {
  Sequential named;
  named.append(std::make_unique<Dense>(3, 3), "head");
  CHECK(named.text().empty());
  Sequential nested;
  nested.add<Sequential>().add<ReLU>();
  CHECK(nested.text().empty());
}

TEST_CASE("The named models are the reference networks") {
  // Counted by hand from their layer sizes; with batch norm: no bias before it, scale and shift in it.
  const int64_t w1 = 784 * 100 + 100 + 2 * (100 * 100 + 100) + 100 * 10 + 10;
  CHECK(parameter_count("w1", false) == w1);
  CHECK(parameter_count("w1", true) == w1 + 3 * 100);
  const int64_t w2 = 784 * 512 + 512 + 512 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10;
  CHECK(parameter_count("w2", false) == w2);
  CHECK(parameter_count("w2", true) == w2 + 512 + 256 + 128);
  const int64_t w3 =
      9 * (32 + 32 * 32 + 32 * 64 + 64 * 64) + 32 + 32 + 64 + 64 + 7 * 7 * 64 * 128 + 128 + 128 * 10 + 10;
  CHECK(parameter_count("w3", false) == w3);
  CHECK(parameter_count("w3", true) == w3 + 32 + 32 + 64 + 64 + 128);
  CHECK(parameter_count("mlp", false) == 784 * 256 + 256 + 256 * 128 + 128 + 1290);
  CHECK(parameter_count("lenet", false) == 25 * 6 + 6 + 25 * 6 * 16 + 16 + 400 * 120 + 120 + 120 * 84 + 84 + 850);
  CHECK(to_string(model_text("w1", true).init) == "normal(0, 0.1)");
  CHECK(model_text("w1", false).layers == "dense:100,sigmoid,dense:100,sigmoid,dense:100,sigmoid,dense:10");
  CHECK(to_string(model_text("w3", false).init) == "he_normal");
  CHECK(error_of([] { model_text("w4", true); }) ==
        "model: unknown name \"w4\" (did you mean \"w1\"?); there are mlp, w1, w2, w3, lenet");
}

TEST_CASE("A text without its batch norms keeps all else, biases come back") {
  CHECK(
      without_batch_norm("dense:4:bias=off,bn:keras,relu, conv:3 : bias=off,relu,bn,dense:2:init=normal(0, 0.1),bn") ==
      "dense:4,relu,conv:3:bias=off,relu,dense:2:init=normal(0, 0.1)");
  CHECK(without_batch_norm(build("dense:4,bn,dense:2", {3})->text()) == "dense:4,dense:2");
}

TEST_CASE("A text that cannot be built is refused with the layer at fault and the way out") {
  const std::pair<const char*, const char*> refused[] = {
      {"",
       "build: layer 1 \"\": unknown kind \"\"; there are dense, conv, bn, ln, gn, relu, sigmoid, tanh, dropout, flatten, "
       "maxpool, avgpool, gap"},
      {"relu,,relu",
       "build: layer 2 \"\": unknown kind \"\"; there are dense, conv, bn, ln, gn, relu, sigmoid, tanh, dropout, "
       "flatten, maxpool, avgpool, gap"},
      {"relu,dens:512",
       "build: layer 2 \"dens:512\": unknown kind \"dens\" (did you mean \"dense\"?); there are dense, conv, "
       "bn, ln, gn, relu, sigmoid, tanh, dropout, flatten, maxpool, avgpool, gap"},
      {"dense", "build: layer 1 \"dense\": expected a size, as in \"dense:32\""},
      {"dense:abc", "build: layer 1 \"dense:abc\": expected a size, as in \"dense:32\""},
      {"dense:3.5", "build: layer 1 \"dense:3.5\": the size must be an integer, got \"3.5\""},
      {"dense:99999999999999999999",
       "build: layer 1 \"dense:99999999999999999999\": the size must be an integer, got \"99999999999999999999\""},
      {"dense:0", "build: layer 1 \"dense:0\": Dense: expected sizes >= 1, got in = 784, out = 0"},
      {"dense:-5", "build: layer 1 \"dense:-5\": Dense: expected sizes >= 1, got in = 784, out = -5"},
      {"relu:3", "build: layer 1 \"relu:3\": relu takes no size, got \"3\""},
      {"relu:x", "build: layer 1 \"relu:x\": unknown option \"x\"; relu takes none"},
      {"conv:8:kernel=5",
       "build: layer 1 \"conv:8:kernel=5\": unknown option \"kernel\"; conv takes k, s, p, d, g, bias, init"},
      {"bn:moment=0.1",
       "build: layer 1 \"bn:moment=0.1\": unknown option \"moment\" (did you mean \"momentum\"?); bn takes "
       "keras, eps, momentum, scale, shift, zero, track, frozen, rank, axis, unbiased, one_value"},
      {"conv:8:k=2:k=3", "build: layer 1 \"conv:8:k=2:k=3\": option \"k\" is given twice"},
      {"conv:8:k=x", "build: layer 1 \"conv:8:k=x\": k must be an integer or HxW, got \"x\""},
      {"conv:8:k=", "build: layer 1 \"conv:8:k=\": k must be an integer or HxW, got \"\""},
      {"dense:8:bias=yes", "build: layer 1 \"dense:8:bias=yes\": bias must be on or off, got \"yes\""},
      {"dense:8:init=he",
       "build: layer 1 \"dense:8:init=he\": init: \"he\" is not one of zeros, ones, constant, normal, "
       "uniform, he_normal, he_uniform, glorot_normal, glorot_uniform, lecun_normal"},
      {"bn:eps=small", "build: layer 1 \"bn:eps=small\": eps must be a number, got \"small\""},
      {"bn:eps=-1", "build: layer 1 \"bn:eps=-1\": BatchNorm: expected a finite eps >= 0, got -1"},
      {"bn:momentum=fast", "build: layer 1 \"bn:momentum=fast\": momentum must be a number, got \"fast\""},
      {"bn:axis=4", "build: layer 1 \"bn:axis=4\": axis must be -1 or 1 to 3 for x[1, 28, 28, 1], got 4"},
      {"dropout:1", "build: layer 1 \"dropout:1\": Dropout: expected p in [0, 1), got 1"},
      {"maxpool:2x2x2", "build: layer 1 \"maxpool:2x2x2\": the size must be an integer or HxW, got \"2x2x2\""},
      {"avgpool:2:d=2",
       "build: layer 1 \"avgpool:2:d=2\": unknown option \"d\"; avgpool takes s, p, "
       "ceil, count_padding"},
      {"conv:8:k=29",
       "build: layer 1 \"conv:8:k=29\": Conv2d \"conv1\": expected an input of at least 29 along H "
       "for a window of 29 with padding 0, got 28"},
      {"dense:8,conv:8",
       "build: layer 2 \"conv:8\": Conv2d \"conv1\": expected x[N, H, W, 8], got x[1, 8] (4 axes vs 2)"},
  };
  for (const auto& [text, error] : refused) {
    const char* given = text;
    CHECK(error_of([&] { build(given, {28, 28, 1}); }) == error);
  }
  CHECK_THROWS_AS(build("conv:8:k=29", {28, 28, 1}), ShapeError);
  CHECK(error_of([] { build("relu", {28, 0, 1}); }) == "build: expected an input of extents >= 1, got [28, 0, 1]");
  std::string many = "relu";
  for (int i = 0; i < 10'000; ++i) many += ",relu";
  CHECK(error_of([&] { build(many, {3}); }) == "build: expected at most 10000 layers, got 10001");
}

TEST_CASE("A model larger than allowed is refused before it is made") {
  CHECK(build("dense:10,bn", {7}, {.max_values = 110})->text() == "dense:10:bias=off,bn");
  const uint64_t allocations = memory_stats().system_allocations;
  CHECK(error_of([] { build("dense:10,bn", {7}, {.max_values = 109}); }) ==
        "build: layer 2 \"bn\": the model would hold more than 109 values");
  CHECK_THROWS_AS(build("conv:9000000000:k=9000000000", {9, 9, 9}), ValueError);
  CHECK_THROWS_AS(build("dense:1000000000", {1'000'000'000}, {.max_values = 1'000'000}), ValueError);
  CHECK(memory_stats().system_allocations <= allocations + 4);
}

// ---- files --------------------------------------------------------------------------------------------------

TEST_CASE("A saved model is rebuilt from its file alone") {
  const TempDir dir;
  const std::string path = dir.file("model.safetensors");
  const std::string text =
      "conv:4:k=3:p=1,bn:momentum=cumulative,relu,maxpool:2,flatten,dropout:0.5,dense:6:init=normal(0, 0.1),bn:keras,"
      "sigmoid,dense:3";
  for (const Dtype dtype : {Dtype::float32, Dtype::float64}) {
    const auto model = build(text, {8, 8, 2}, {.seed = 5, .dtype = dtype});
    const Tensor x = random({4, 8, 8, 2}, 1, dtype);
    (*model)(x);
    save(*model, path, {{"input_shape", "[8, 8, 2]"}, {"dataset", "none"}});
    const auto again = load_model(path);
    CHECK(again->text() == model->text());
    CHECK(same_state(*again, *model));
    CHECK(bytes(again->eval()(x)) == bytes(model->eval()(x)));
    CHECK(again->parameters()[0].tensor.requires_grad());
    const SafeTensors file = read_safetensors(path);
    CHECK(file.metadata.at("dataset") == "none");
    CHECK(file.metadata.at("layers") == model->text());
    CHECK(file.metadata.at("format_version") == "1");
  }
}

TEST_CASE("Saving twice gives the same bytes") {
  const TempDir dir;
  const auto model = build("dense:6,bn,relu,dense:3", {4}, {.seed = 5});
  save(*model, dir.file("a"), {{"input_shape", "[4]"}});
  save(*model->clone(), dir.file("b"), {{"input_shape", "[4]"}});
  CHECK(read_file(dir.file("a")) == read_file(dir.file("b")));
}

TEST_CASE("A file's values are loaded into a model of the same names, all or nothing") {
  const TempDir dir;
  const std::string path = dir.file("bn.safetensors");
  const auto bn = build("dense:6,bn,dense:3", {4}, {.seed = 1}), plain = build("dense:6,dense:3", {4}, {.seed = 2});
  save(*plain, path);
  const auto before = bytes(bn->state_dict()[0].second);
  CHECK(error_of([&] { load(*bn, path); }) ==
        "load: " + path + " has no \"bn1.weight\"; it holds 4 tensors, the model wants 8");
  CHECK(bytes(bn->state_dict()[0].second) == before);
  load(*bn, path, {.strict = false});
  CHECK(bytes(bn->state_dict()[0].second) == bytes(plain->state_dict()[0].second));
}

TEST_CASE("A model cannot be saved under metadata of its own, nor to a folder that is not there") {
  const TempDir dir;
  const auto model = build("dense:3", {4});
  for (const char* key : {"layers", "format", "format_version"}) {
    CHECK(error_of([&] {
            save(*model, dir.file("x"), {{key, "x"}});
          }) == std::string("save: the metadata \"") + key + "\" is given twice, or is save's own");
  }
  CHECK_THROWS_AS(read_file(dir.file("x")), IoError);
  CHECK(error_of([&] { save(*model, dir.file("none/x")); }) ==
        "cannot write " + dir.file("none/x") + ": No such file or directory");
}

TEST_CASE("A file from which no model can be rebuilt is refused, whatever it claims") {
  const TempDir dir;
  const std::string path = dir.file("x.safetensors");
  const auto model = build("dense:3", {4});
  const auto refused = [&](std::map<std::string, std::string> metadata, const std::string& error) {
    write_safetensors(path, {model->state_dict(), metadata});
    CHECK(error_of([&] { load_model(path); }) == error);
    CHECK_THROWS_AS(load_model(path), ModelFileError);
  };
  const std::string at = "load_model: " + path + ": ";
  const auto lacks = [&](const std::string& key) {
    return at + "its metadata has no \"" + key + "\", so the model cannot be rebuilt; build it and load() the values";
  };
  std::map<std::string, std::string> good{
      {"format", "tandem"}, {"format_version", "1"}, {"layers", "dense:3"}, {"input_shape", "[4]"}};
  const auto with = [&](const std::string& key, const std::string& value) {
    auto metadata = good;
    metadata[key] = value;
    return metadata;
  };
  refused({}, lacks("format_version"));
  refused({{"format_version", "1"}, {"format", "tandem"}}, lacks("layers"));
  refused({{"format_version", "1"}, {"format", "tandem"}, {"layers", "dense:3"}}, lacks("input_shape"));
  refused(with("format_version", "2"), at + "expected format tandem 1, got tandem 2; use the version that wrote it");
  refused(with("format", "pt"), at + "expected format tandem 1, got pt 1; use the version that wrote it");
  for (const char* shape : {"", "4", "[4", "[4,]", "[x]", "[4.0]"}) {
    refused(with("input_shape", shape),
            at + "expected an input_shape such as [28, 28, 1], got \"" + std::string(shape) + "\"");
  }
  refused(with("input_shape", "[-4]"),
          at + "its layers cannot be built: shape: expected extents >= 0, got -4 for axis 0");
  refused(with("layers", "dense:3,boom"), at + "its layers cannot be built: build: layer 2 \"boom\": unknown kind "
                                               "\"boom\"; there are dense, conv, bn, ln, gn, relu, "
                                               "sigmoid, tanh, dropout, flatten, maxpool, avgpool, gap");
  refused(
      with("layers", "dense:1000000000"),
      at + "its layers cannot be built: build: layer 1 \"dense:1000000000\": the model would hold more than 15 values");
  refused(with("layers", "dense:3:bias=off"),
          "load: " + path + " has \"dense1.bias\", which the model has not; it holds 2 tensors, the model wants 1");
  refused(with("layers", "dense:2"), "load: \"dense1.weight\" is [3, 4] in " + path + ", the model wants [2, 4]");
}
