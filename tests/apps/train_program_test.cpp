// tandem train as a user drives it: what a run leaves behind, and what happens when it is disturbed.
#include <signal.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "../catch.hpp"
#include "program.h"
#include "tandem/core/hash.h"
#include "tandem/core/safetensors.h"

using namespace tandem;
using namespace tandem::test;
using Catch::Matchers::Contains;
using Json = nlohmann::json;

namespace {

// A folder with a small data set and the arguments that train on it.
struct Workplace {
  TempDir dir;
  Workplace() { write_small_mnist(dir.file("data/mnist"), 1200, 300); }

  std::vector<std::string> command(const std::vector<std::string>& more) const {
    std::vector<std::string> words = {
        "train", "--dataset", "mnist", "--data", "data", "--layers", "dense:32,bn,relu,dense:10", "--batch-size", "50"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  Outcome train(const std::vector<std::string>& more, const ProgramOptions& options = {}) const {
    return tandem_program(dir, command(more), options);
  }
  Json result(const std::string& run) const { return Json::parse(read_text(dir.file(run + "/RESULT.json"))); }
  std::vector<Json> metrics(const std::string& run) const {
    std::vector<Json> records;
    std::istringstream lines(read_text(dir.file(run + "/metrics.jsonl")));
    for (std::string line; std::getline(lines, line);) records.push_back(Json::parse(line));
    return records;
  }
  std::string model(const std::string& run) const { return read_text(dir.file(run + "/model.safetensors")); }
};

bool all_finite(const std::string& path) {
  for (const auto& [name, tensor] : read_safetensors(path).tensors) {
    for (const double v : values(tensor)) {
      if (!std::isfinite(v)) return false;
    }
  }
  return true;
}

void wait_for_file(const std::string& path, size_t size) {
  for (int i = 0; i < 2000 && (!exists(path) || std::filesystem::file_size(path) < size); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace

TEST_CASE("A run directory holds all that was said and learned") {
  const Workplace place;
  const Outcome outcome = place.train({"--epochs", "4", "--seed", "7", "--out", "run", "--json"});
  INFO(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  const std::vector<std::string> files = files_in(place.dir.file("run"));
  REQUIRE(files.size() == 7);
  CHECK(files[0] == "RESULT.json");
  CHECK(files[1] == "config.json");
  CHECK(files[2] == "env.json");
  CHECK(files[3].starts_with("events.out.tfevents."));
  CHECK(std::vector(files.begin() + 4, files.end()) ==
        std::vector<std::string>{"metrics.csv", "metrics.jsonl", "model.safetensors"});

  const Json result = place.result("run");
  Json printed = Json::parse(outcome.out);
  CHECK(printed.at("out") == "run");
  printed.erase("out");
  CHECK(printed == result);
  CHECK(result.at("status") == "finished");
  CHECK(result.at("dataset") == "mnist");
  CHECK(result.at("steps") == 4 * 22);  // 1,100 images to train
  CHECK(result.at("parameters") == 784 * 32 + 2 * 32 + 32 * 10 + 10);
  CHECK(result.at("test_accuracy").get<double>() > 0.5);
  CHECK(result.at("test_accuracy").get<double>() <= 1);
  CHECK(result.at("train_loss").get<double>() < 2.3);
  CHECK(result.at("seconds").get<double>() > 0);

  const Json config = Json::parse(read_text(place.dir.file("run/config.json")));
  CHECK(config.at("seed") == 7);
  CHECK(config.at("lr") == 0.1);
  CHECK(config.at("layers") == "dense:32,bn,relu,dense:10");
  for (const char* resolved : {"threads", "eval_every", "step_size", "epochs", "batch_size"})
    CHECK(config.at(resolved).get<int>() > 0);
  CHECK(config.at("from").is_null());
  const Json env = Json::parse(read_text(place.dir.file("run/env.json")));
  CHECK(env.at("dataset").at("train") == 1100);
  for (const char* key : {"build_type", "build_flags", "cuda"}) CHECK(env.contains(key));
  CHECK(env.at("dataset").at("train_sha256").get<std::string>().size() == 64);

  const std::vector<Json> metrics = place.metrics("run");
  std::map<std::string, int> splits;
  for (const Json& m : metrics) ++splits[m.at("split")];
  CHECK(splits == std::map<std::string, int>{{"train", 4 * 3}, {"validation", 4}, {"test", 1}});
  CHECK(metrics.back().at("accuracy") == result.at("test_accuracy"));
  const std::string csv = read_text(place.dir.file("run/metrics.csv"));
  CHECK(static_cast<size_t>(std::count(csv.begin(), csv.end(), '\n')) == metrics.size() + 1);
}

TEST_CASE("Without --dataset, MNIST is used where it is found, else the built-in digits, with a notice") {
  const Workplace place;
  const std::vector<std::string> words = {"train", "--max-steps", "1", "--layers", "dense:10", "--out"};
  const auto run = [&](const std::string& out, const ProgramOptions& options) {
    std::vector<std::string> all = words;
    all.push_back(out);
    const Outcome outcome = tandem_program(place.dir, all, options);
    CHECK(outcome.exit_code == 0);
    return outcome.err;
  };
  const std::string notice = "No MNIST found: using built-in digits; `tandem data fetch mnist` gets MNIST\n";
  CHECK_THAT(run("a", {}), Contains(notice));
  CHECK(place.result("a").at("dataset") == "digits");
  CHECK_THAT(run("b", {.environment = {{"TANDEM_DATA", "data"}}}), !Contains(notice));
  CHECK(place.result("b").at("dataset") == "mnist");
}

TEST_CASE("The same seed gives the same bytes, on any number of threads and however often it is evaluated") {
  const Workplace place;
  REQUIRE(place.train({"--epochs", "2", "--out", "a", "--threads", "1"}).exit_code == 0);
  REQUIRE(place.train({"--epochs", "2", "--out", "b", "--threads", "3"}).exit_code == 0);
  REQUIRE(place.train({"--epochs", "2", "--out", "c", "--eval-every", "3"}).exit_code == 0);
  REQUIRE(place.train({"--epochs", "2", "--out", "d", "--seed", "2"}).exit_code == 0);
  CHECK(place.model("a") == place.model("b"));
  CHECK(place.model("a") == place.model("c"));
  CHECK(place.model("a") != place.model("d"));
  std::vector<Json> a = place.metrics("a"), b = place.metrics("b");
  for (auto* metrics : {&a, &b}) {
    for (Json& m : *metrics) m.erase("time");
  }
  CHECK(a == b);
}

TEST_CASE("A finished run is not overwritten unless asked, and then only its own files are") {
  const Workplace place;
  REQUIRE(place.train({"--max-steps", "3", "--out", "run"}).exit_code == 0);
  std::ofstream(place.dir.file("run/notes.txt")) << "mine";
  const std::string before = place.model("run");
  const Outcome refused = place.train({"--max-steps", "4", "--out", "run"});
  CHECK(refused.exit_code == 1);
  CHECK_THAT(refused.err, Contains("tandem: run directory run: expected an empty folder, it holds a finished run; "
                                   "choose another --out, or --force to replace it\n"));
  CHECK(place.model("run") == before);
  REQUIRE(place.train({"--max-steps", "4", "--out", "run", "--force"}).exit_code == 0);
  CHECK(place.result("run").at("steps") == 4);
  CHECK(read_text(place.dir.file("run/notes.txt")) == "mine");
}

TEST_CASE("A run that is refused leaves the run it would have replaced as it was") {
  const Workplace place;
  REQUIRE(place.train({"--max-steps", "3", "--out", "run"}).exit_code == 0);
  const auto before = files_in(place.dir.file("run"));
  const std::string model = place.model("run");
  const std::vector<std::vector<std::string>> wrong = {{"--warmup", "1000"},
                                                       {"--batch-size", "1"},
                                                       {"--nesterov", "--momentum", "0"},
                                                       {"--last-batch", "keep", "--batch-size", "1099"},
                                                       {"--from", "run", "--warmup", "1000"}};
  for (std::vector<std::string> words : wrong) {
    if (words[0] == "--from") {
      words.insert(words.begin(), {"train", "--dataset", "mnist", "--data", "data"});
    } else {
      words = place.command(words);
    }
    words.insert(words.end(), {"--out", "run", "--force"});
    const Outcome outcome = tandem_program(place.dir, words);
    INFO(outcome.err);
    CHECK(outcome.exit_code == 2);
    CHECK(files_in(place.dir.file("run")) == before);
    CHECK(place.model("run") == model);
  }
  // A run that fails after it was given the folder, but before its first step.
  const Outcome failed = place.train({"--out", "run", "--force"}, {.max_file_size = 20});
  CHECK(failed.exit_code == 1);
  CHECK(files_in(place.dir.file("run")) == before);
  CHECK(place.model("run") == model);

  CHECK(tandem_program(place.dir, {"train", "--dataset", "mnist", "--data", "data", "--max-steps", "1", "--from", "run",
                                   "--out", "run", "--force"})
            .exit_code == 0);
  CHECK(files_in(place.dir.file("run")).size() == before.size());
}

TEST_CASE("train --force replaces a run and nothing that only looks like one") {
  const Workplace place;
  std::filesystem::create_directory(place.dir.file("mine"));
  std::ofstream(place.dir.file("mine/config.json")) << "{\"layers\": 3}";
  const Outcome outcome = place.train({"--max-steps", "3", "--out", "mine", "--force"});
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("tandem: run directory mine: expected an empty folder, it holds files that are no "
                                   "run's; choose another --out\n"));
  CHECK(files_in(place.dir.file("mine")) == std::vector<std::string>{"config.json"});

  REQUIRE(place.train({"--max-steps", "3", "--out", "run"}).exit_code == 0);
  std::filesystem::remove(place.dir.file("run/RESULT.json"));  // as if it had been killed
  std::ofstream(place.dir.file("run/model.safetensors.part-123")) << "half";
  CHECK(place.train({"--max-steps", "3", "--out", "run", "--force"}).exit_code == 0);
  CHECK(!exists(place.dir.file("run/model.safetensors.part-123")));
}

TEST_CASE("Runs without --out get folders of their own, even at once") {
  const Workplace place;
  const auto words = place.command({"--max-steps", "2"});
  Program first(place.dir, words), second(place.dir, words), third(place.dir, words);
  for (Program* program : {&first, &second, &third}) CHECK(program->wait().exit_code == 0);
  const auto runs = files_in(place.dir.file("runs"));
  REQUIRE(runs.size() == 3);
  for (const std::string& run : runs) {
    CHECK_THAT(run, Contains("_mnist-custom-bn_s1"));
    CHECK(place.result("runs/" + run).at("steps") == 2);
  }
}

TEST_CASE("Two programs do not write one run directory") {
  const Workplace place;
  Program first(place.dir, place.command({"--epochs", "100000", "--out", "run"}));
  wait_for_file(place.dir.file("run/metrics.jsonl"), 1);
  const Outcome second = place.train({"--max-steps", "2", "--out", "run", "--force"});
  CHECK(second.exit_code == 1);
  CHECK_THAT(second.err, Contains("tandem: run directory run: another process is writing there\n"));
  first.signal(SIGTERM);
  CHECK(first.wait().exit_code == 143);
  CHECK(place.result("run").at("status") == "interrupted");
}

TEST_CASE("SIGINT and SIGTERM end a run early, with everything written") {
  const Workplace place;
  for (const int number : {SIGINT, SIGTERM}) {
    const std::string run = "run" + std::to_string(number);
    Program program(place.dir, place.command({"--epochs", "100000", "--out", run}));
    wait_for_file(place.dir.file(run + "/metrics.jsonl"), 500);
    program.signal(number);
    const Outcome outcome = program.wait();
    CHECK(outcome.exit_code == 128 + number);
    CHECK_THAT(outcome.out, Contains("interrupted: test accuracy "));
    const Json result = place.result(run);
    CHECK(result.at("status") == "interrupted");
    CHECK(result.at("steps").get<int>() > 0);
    CHECK(tandem_program(place.dir, {"eval", run, "--data", "data"}).exit_code == 0);
    for (const std::string& file : files_in(place.dir.file(run))) CHECK_THAT(file, !Contains(".part"));
    CHECK(place.metrics(run).back().at("split") == "test");
  }
}

TEST_CASE("A second signal ends the program at once") {
  const Workplace place;
  // Steps of about a second: the second signal comes long before the first one is answered.
  Program program(place.dir,
                  {"train", "--dataset", "mnist", "--data", "data", "--layers",
                   "conv:64:p=1,relu,conv:64:p=1,relu,flatten,dense:10", "--batch-size", "300", "--out", "run"});
  wait_for_file(place.dir.file("run/metrics.jsonl"), 0);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  program.signal(SIGINT);
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  program.signal(SIGINT);
  CHECK(program.wait().exit_code == 130);
  CHECK(!exists(place.dir.file("run/RESULT.json")));
}

TEST_CASE("A diverging run stops at once, keeps the last good model, and says so") {
  const Workplace place;
  const Outcome outcome = place.train({"--lr", "1e30", "--bn", "off", "--schedule", "constant", "--out", "run"});
  CHECK(outcome.exit_code == 5);
  CHECK_THAT(outcome.err, Contains("tandem: training diverged: the loss of step "));
  const Json result = place.result("run");
  CHECK(result.at("status") == "diverged");
  CHECK(result.at("test_accuracy").is_null());
  CHECK(result.at("steps").get<int>() < 22);
  CHECK(result.at("model_step") == 0);
  CHECK(static_cast<int>(place.metrics("run").size()) >= 1);
  CHECK(all_finite(place.dir.file("run/model.safetensors")));
}

TEST_CASE("A run that diverges at its first step leaves what its message names") {
  const Workplace place;
  // Weights so large that the very first loss is infinite: there is no first step.
  const Outcome outcome =
      tandem_program(place.dir, {"train", "--dataset", "mnist", "--data", "data", "--layers",
                                 "dense:32:init=normal(0, 1e38),dense:32:init=normal(0, 1e38),dense:10", "--out", "run"});
  CHECK(outcome.exit_code == 5);
  CHECK_THAT(outcome.err, Contains("the loss of step 1 is") && Contains("; logs are in run\n"));
  CHECK(place.result("run").at("steps") == 0);
  CHECK(place.result("run").at("train_loss").is_null());
}

TEST_CASE("train --from goes on from the weights of a file") {
  const Workplace place;
  REQUIRE(place.train({"--epochs", "3", "--out", "first"}).exit_code == 0);
  const auto from = [&](std::vector<std::string> more) {
    more.insert(more.begin(), {"train", "--dataset", "mnist", "--data", "data", "--batch-size", "50", "--max-steps",
                               "1", "--log-every", "1", "--from", "first"});
    return tandem_program(place.dir, more);
  };
  REQUIRE(from({"--out", "second"}).exit_code == 0);
  CHECK(place.metrics("second")[0].at("loss").get<double>() < 0.6 * place.metrics("first")[0].at("loss").get<double>());
  CHECK(Json::parse(read_text(place.dir.file("second/config.json"))).at("layers") ==
        "flatten,dense:32:bias=off,bn,relu,dense:10");
  const Json second = Json::parse(read_text(place.dir.file("second/config.json")));
  CHECK(second.at("from") == "first");
  const std::string model = place.model("first");
  CHECK(second.at("from_sha256") == sha256(model.data(), model.size()));
  CHECK(second.at("epochs") == 1);
  CHECK(from({"--out", "third", "--layers", "dense:32,bn,relu,dense:10"}).exit_code == 0);
  const Outcome conflict = from({"--out", "fourth", "--model", "w2"});
  CHECK(conflict.exit_code == 2);
  CHECK_THAT(conflict.err, Contains("--from first: expected the network asked for"));
  CHECK(!exists(place.dir.file("fourth")));
}

TEST_CASE("train --dry-run describes the run and does nothing") {
  const Workplace place;
  const Outcome outcome = place.train({"--dry-run", "--weight-decay", "0.001"});
  CHECK(outcome.exit_code == 0);
  for (const char* text : {"dense1", "bn1", "25,482", "weight decay 0.001 on 2 of 5 tensors", "1,100 to train",
                           "66 of 50 images (22 an epoch)"}) {
    CHECK_THAT(outcome.out, Contains(text));
  }
  CHECK(files_in(place.dir.path()) == std::vector<std::string>{"data"});
}

TEST_CASE("train --config does a run again, and flags go before the environment, and that before the file") {
  const Workplace place;
  REQUIRE(place.train({"--max-steps", "30", "--optimizer", "adamw", "--nesterov", "--seed", "9", "--bn", "off", "--out",
                       "first"})
              .exit_code == 0);
  REQUIRE(tandem_program(place.dir, {"train", "--config", "first/config.json", "--out", "again"}).exit_code == 0);
  CHECK(place.model("again") == place.model("first"));
  CHECK(read_text(place.dir.file("again/config.json")) == read_text(place.dir.file("first/config.json")));
  const auto settings = [&](std::vector<std::string> words, const std::map<std::string, std::string>& environment) {
    words.insert(words.begin(), {"train", "--config", "first/config.json", "--dry-run", "--json"});
    const Outcome outcome = tandem_program(place.dir, words, {.environment = environment});
    INFO(outcome.err);
    REQUIRE(outcome.exit_code == 0);
    return Json::parse(outcome.out);
  };
  const std::map<std::string, std::string> environment = {
      {"TANDEM_LR", "0.25"}, {"TANDEM_MAX_STEPS", "7"}, {"TANDEM_BN", "on"}, {"TANDEM_DATA", "nowhere"}};
  const Json mixed = settings({"--lr", "0.5", "--model", "mlp"}, environment);
  CHECK(mixed.at("lr") == 0.5);
  CHECK(mixed.at("max_steps") == 7);
  CHECK(mixed.at("bn") == true);
  CHECK(mixed.at("seed") == 9);
  CHECK(mixed.at("model") == "mlp");
  CHECK(settings({}, environment).at("lr") == 0.25);

  const auto refused = [&](const std::string& text, const std::map<std::string, std::string>& environment) {
    std::ofstream(place.dir.file("c.json")) << text;
    const Outcome outcome =
        tandem_program(place.dir, {"train", "--config", "c.json", "--out", "no"}, {.environment = environment});
    CHECK(outcome.exit_code == 2);
    CHECK(!exists(place.dir.file("no")));
    return outcome.err;
  };
  CHECK(refused("{\"lr\": \"fast\"}", {}) == "tandem: --config c.json: --lr: expected a number of at least 0, got 'fast'\n");
  CHECK(refused("{\"learning\": 1}", {}) == "tandem: --config c.json: train has no --learning\n");
  CHECK(refused("[1]", {}) == "tandem: --config c.json: expected a JSON object such as a run's\n");
  CHECK(refused("{}", {{"TANDEM_EPOCHS", "many"}}) ==
        "tandem: TANDEM_EPOCHS: --epochs: expected an integer from 1 to 1000000, got 'many'\n");
}

TEST_CASE("Progress is plain lines when stderr is no terminal, and nothing after -q") {
  const Workplace place;
  const Outcome talking = place.train({"--max-steps", "3", "--out", "a"});
  CHECK_THAT(talking.err, !Contains("\x1b") && !Contains("\r"));
  CHECK_THAT(talking.err, Contains("validation loss"));
  CHECK_THAT(talking.out, Contains("done: test accuracy "));
  const Outcome quiet = place.train({"--max-steps", "3", "--out", "b", "-q"});
  CHECK(quiet.err.empty());
  CHECK_THAT(quiet.out, Contains("done: test accuracy "));
}

TEST_CASE("On a terminal a bar shows how far training is, within 80 columns, and goes away") {
  const Workplace place;
  ProgramOptions options{.terminal = true};
  const auto on_terminal = [&](const std::string& out, const std::string& name, const std::string& value) {
    options.environment = {{name, value}};
    Outcome outcome = place.train({"--epochs", "60", "--eval-every", "660", "--out", out}, options);
    CHECK(outcome.exit_code == 0);
    return outcome.err;
  };
  const std::string shown = on_terminal("a", "LANG", "C");
  CHECK_THAT(shown, Contains(" % [") && Contains("/1320  loss ") && Contains(" left"));
  const size_t last_clear = shown.rfind("\r\x1b[K");
  REQUIRE(last_clear != std::string::npos);
  CHECK(shown.find(" % [", last_clear) == std::string::npos);
  for (size_t begin = 0; (begin = shown.find("\r\x1b[K", begin)) != std::string::npos;) {
    begin += 4;
    CHECK(std::min(shown.find_first_of("\r\n", begin), shown.size()) - begin <= 80);
  }
  CHECK_THAT(on_terminal("b", "TERM", "dumb"), !Contains(" % [") && !Contains("\x1b"));
}

TEST_CASE("NO_COLOR and --color never keep colours off a terminal") {
  const Workplace place;
  const auto shown = [&](std::vector<std::string> words, const std::map<std::string, std::string>& environment) {
    return tandem_program(place.dir, words, {.environment = environment, .terminal = true}).err;
  };
  CHECK_THAT(shown({"eval", "nothing"}, {}), Contains("\x1b[31m"));
  CHECK_THAT(shown({"eval", "nothing"}, {{"NO_COLOR", "1"}}), !Contains("\x1b"));
  CHECK_THAT(shown({"eval", "nothing", "--color", "never"}, {}), !Contains("\x1b"));
}

TEST_CASE("A full disk is a sentence and exit code 1, and no file is half written") {
  const Workplace place;
  // The model, about 100 kB, does not fit; then not even the metrics do.
  const Outcome model = place.train({"--epochs", "2", "--out", "a"}, {.max_file_size = 50'000});
  CHECK(model.exit_code == 1);
  CHECK_THAT(model.err, Contains("tandem: cannot write a/model.safetensors: File too large\n"));
  const auto files = files_in(place.dir.file("a"));
  CHECK(!files.empty());
  for (const std::string& file : files) CHECK_THAT(file, !Contains("safetensors") && !Contains("RESULT"));
  CHECK(place.metrics("a").size() == 2 * 4);

  const Outcome log = place.train({"--epochs", "2000", "--out", "b", "--log-every", "1"}, {.max_file_size = 20'000});
  CHECK(log.exit_code == 1);
  CHECK_THAT(log.err, Contains("File too large\n"));
  CHECK(place.metrics("b").size() > 20);  // parses: every line is whole
  CHECK(!exists(place.dir.file("b/RESULT.json")));
}

TEST_CASE("A log that cannot be written ends a run as a signal does, with everything else saved") {
  const Workplace place;
  const Outcome outcome =
      tandem_program(place.dir,
                     {"train", "--dataset", "mnist", "--data", "data", "--layers", "dense:10", "--epochs", "2000",
                      "--log-every", "1", "--out", "run"},
                     {.max_file_size = 40'000});
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("tandem: cannot write run/") && Contains(": File too large\n"));
  CHECK_THAT(outcome.out, Contains("interrupted: test accuracy "));
  CHECK(place.result("run").at("status") == "interrupted");
  CHECK(place.metrics("run").size() > 100);
  CHECK(tandem_program(place.dir, {"eval", "run", "--data", "data"}).exit_code == 0);
}

TEST_CASE("What cannot be done leaves no run directory behind") {
  const Workplace place;
  std::ofstream(place.dir.file("file")) << "x";
  const Outcome under_file = place.train({"--out", "file/run"});
  CHECK(under_file.exit_code == 1);
  CHECK_THAT(under_file.err, Contains("tandem: run directory file/run: Not a directory\n"));

  const Outcome one_value = place.train({"--out", "run", "--batch-size", "1"});
  CHECK(one_value.exit_code == 2);
  CHECK_THAT(one_value.err, Contains("BatchNorm \"bn1\": training needs at least 2 values per channel"));

  const std::vector<std::string> base = {"train", "--dataset", "mnist", "--data", "data", "--out", "run", "--layers"};
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"dense:32,rleu,dense:10", "relu"},
      {"dense:9", "layers: expected 10 outputs an image, one per class of mnist, got [9] from \"dense:9\""},
      {"conv:8:k=40,flatten,dense:10", "conv"},
  };
  for (const auto& [layers, text] : wrong) {
    std::vector<std::string> words = base;
    words.push_back(layers);
    INFO(layers);
    const Outcome outcome = tandem_program(place.dir, words);
    CHECK(outcome.exit_code == 2);
    CHECK_THAT(outcome.err, Contains(text));
  }
  const Outcome batch = place.train({"--batch-size", "1101"});
  CHECK(batch.exit_code == 2);
  CHECK_THAT(batch.err, Contains("--batch-size: expected at most the 1100 training images of mnist, got 1101"));
  const Outcome warmup = place.train({"--warmup", "1000", "--out", "a/b/c"});
  CHECK(warmup.exit_code == 2);
  CHECK_THAT(warmup.err, Contains("tandem: --warmup: expected at most the 66 steps of this run, got 1000\n"));
  const Outcome no_space = place.train({"--out", "a/b/c"}, {.max_file_size = 20});
  CHECK(no_space.exit_code == 1);
  CHECK(files_in(place.dir.path()) == std::vector<std::string>{"data", "file"});
}

TEST_CASE("Too little memory is exit code 6") {
#if defined(__SANITIZE_ADDRESS__)
  return;  // the sanitizer itself reserves terabytes
#endif
  const Workplace place;
  const Outcome outcome =
      place.train({"--out", "run", "--layers", "dense:100,relu,dense:5000000"}, {.max_memory = 1'000'000'000});
  CHECK(outcome.exit_code == 6);
  CHECK(!exists(place.dir.file("run")));
}
