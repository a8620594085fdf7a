// tandem train as a user drives it: what a run leaves behind, and what happens when it is disturbed.
#include <fmt/format.h>
#include <signal.h>

#include <cmath>
#include <fstream>

#include "../catch.hpp"
#include "tandem/core/hash.h"
#include "tandem/core/safetensors.h"
#include "train_workplace.h"

using namespace tandem;
using namespace tandem::test;
using Catch::Matchers::Contains;
using Json = nlohmann::json;

namespace {

bool all_finite(const std::string& path) {
  for (const auto& [name, tensor] : read_safetensors(path).tensors) {
    for (const double v : values(tensor)) {
      if (!std::isfinite(v)) return false;
    }
  }
  return true;
}

}  // namespace

TEST_CASE("A run directory holds all that was said and learned") {
  const TrainWorkplace place;
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
  CHECK(result.at("target_reached").is_null());

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
  const TrainWorkplace place;
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

TEST_CASE("A last batch of one image is found before training: merged, or refused where it is to be kept") {
  const TrainWorkplace place;  // 1,100 images to train on: 7 batches of 157 and one image
  REQUIRE(place.train({"--batch-size", "157", "--epochs", "1", "--out", "a"}).exit_code == 0);
  CHECK(Json::parse(read_text(place.dir.file("a/config.json"))).at("last_batch") == "merge");
  CHECK(place.result("a").at("steps") == 7);
  REQUIRE(place.train({"--batch-size", "100", "--epochs", "1", "--out", "b"}).exit_code == 0);
  CHECK(Json::parse(read_text(place.dir.file("b/config.json"))).at("last_batch") == "drop");
  const Outcome kept = place.train({"--batch-size", "157", "--last-batch", "keep", "--out", "c"});
  CHECK(kept.exit_code == 2);
  CHECK_THAT(kept.err, Contains("--last-batch drop|merge"));
  CHECK_FALSE(exists(place.dir.file("c")));
}

TEST_CASE("The same seed gives the same bytes, on any number of threads and however often it is evaluated") {
  const TrainWorkplace place;
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

TEST_CASE("SIGINT and SIGTERM end a run early, with everything written") {
  const TrainWorkplace place;
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
  const TrainWorkplace place;
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
  const TrainWorkplace place;
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
  const TrainWorkplace place;
  // Weights so large that the very first loss is infinite: there is no first step.
  const Outcome outcome = tandem_program(
      place.dir, {"train", "--dataset", "mnist", "--data", "data", "--layers",
                  "dense:32:init=normal(0, 1e38),dense:32:init=normal(0, 1e38),dense:10", "--out", "run"});
  CHECK(outcome.exit_code == 5);
  CHECK_THAT(outcome.err, Contains("the loss of step 1 is") && Contains("; logs are in run\n"));
  CHECK(place.result("run").at("steps") == 0);
  CHECK(place.result("run").at("train_loss").is_null());
}

TEST_CASE("train --from goes on from the weights of a file") {
  const TrainWorkplace place;
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
  const TrainWorkplace place;
  const Outcome outcome = place.train({"--dry-run", "--weight-decay", "0.001"});
  CHECK(outcome.exit_code == 0);
  for (const char* text : {"dense1", "bn1", "25,482", "weight decay 0.001 on 2 of 5 tensors", "1,100 to train",
                           "66 of 50 images (22 an epoch)"}) {
    CHECK_THAT(outcome.out, Contains(text));
  }
  CHECK(files_in(place.dir.path()) == std::vector<std::string>{"data"});
}

TEST_CASE("train --config does a run again, and flags go before the environment, and that before the file") {
  const TrainWorkplace place;
  REQUIRE(place
              .train({"--max-steps", "30", "--optimizer", "adamw", "--nesterov", "--seed", "9", "--bn", "off", "--out",
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
  CHECK(refused("{\"lr\": \"fast\"}", {}) ==
        "tandem: --config c.json: --lr: expected a number of at least 0, got 'fast'\n");
  CHECK(refused("{\"learning\": 1}", {}) == "tandem: --config c.json: train has no --learning\n");
  CHECK(refused("[1]", {}) == "tandem: --config c.json: expected a JSON object such as a run's\n");
  CHECK(refused("{}", {{"TANDEM_EPOCHS", "many"}}) ==
        "tandem: TANDEM_EPOCHS: --epochs: expected an integer from 1 to 1000000, got 'many'\n");
}

TEST_CASE("train --preset fills the flags that nothing else says") {
  const TrainWorkplace place;
  const auto settings = [&](std::vector<std::string> words, std::map<std::string, std::string> environment = {}) {
    words.insert(words.begin(), {"train", "--data", "data", "--preset", "fast99", "--dry-run", "--json"});
    const Outcome outcome = tandem_program(place.dir, words, {.environment = environment});
    INFO(outcome.err);
    REQUIRE(outcome.exit_code == 0);
    return Json::parse(outcome.out);
  };
  const Json fast = settings({});
  CHECK(fast.at("preset") == "fast99");
  CHECK(fast.at("model") == "custom");
  CHECK(fast.at("layers").get<std::string>().starts_with("conv:"));
  CHECK(fast.at("schedule") == "one-cycle");
  CHECK(fast.at("target").get<double>() > 99);
  CHECK(fast.at("eval_every").get<int>() > 0);
  CHECK_THAT(tandem_program(place.dir, {"train", "--help"}).out,
             Contains("fast99: ") && Contains(fmt::format("--max-steps {};", fast.at("max_steps").get<int>())));

  const Json changed = settings({"--model", "mlp", "--lr", "0.5", "--target", "98"}, {{"TANDEM_BATCH_SIZE", "40"}});
  CHECK(changed.at("model") == "mlp");
  CHECK(changed.at("lr") == 0.5);
  CHECK(changed.at("target") == 98);
  CHECK(changed.at("batch_size") == 40);
  CHECK(changed.at("optimizer") == fast.at("optimizer"));
  CHECK(settings({"--max-steps", "70"}).at("max_steps") == 70);
  CHECK(settings({"--max-steps", "70"}).at("eval_from") == 0);
  CHECK(settings({"--epochs", "1"}).at("max_steps") == 0);

  const Outcome first = tandem_program(
      place.dir, {"train", "--data", "data", "--layers", "dense:10", "--max-steps", "1", "--out", "first"});
  REQUIRE(first.exit_code == 0);
  CHECK(settings({"--from", "first"}).at("layers") == "flatten,dense:10");  // a file's network goes before a preset's

  std::ofstream(place.dir.file("fast.json")) << fast;
  const Outcome again = tandem_program(place.dir, {"train", "--config", "fast.json", "--dry-run", "--json"});
  CHECK(Json::parse(again.out) == fast);
  std::ofstream(place.dir.file("name.json")) << R"({"preset": "fast99", "seed": 5})";
  const Json named = Json::parse(
      tandem_program(place.dir, {"train", "--data", "data", "--config", "name.json", "--dry-run", "--json"}).out);
  CHECK(named.at("seed") == 5);
  CHECK(named.at("layers") == fast.at("layers"));
  CHECK(fast.at("dataset") == "mnist");
  CHECK_THAT(tandem_program(place.dir, {"train", "--data", "data", "--preset", "fast99", "--dry-run"}).out,
             Contains("at least 99.1 %,\n            looked at every 50 steps from step 1,100\n"));
}

TEST_CASE("train --target stops early and says when, or says that it was not reached") {
  const TempDir dir;
  const auto run = [&](const std::string& target, const std::string& out) {
    const Outcome outcome =
        tandem_program(dir, {"train", "--dataset", "digits", "--layers", "dense:16,bn,relu,dense:10", "--max-steps",
                             "60", "--eval-every", "5", "--target", target, "--out", out});
    INFO(outcome.err);
    REQUIRE(outcome.exit_code == 0);
    return std::pair(outcome, Json::parse(read_text(dir.file(out + "/RESULT.json"))));
  };
  const auto [early, reached] = run("40", "early");
  CHECK_THAT(
      early.err,
      Contains(
          "target      stops when the validation accuracy is at least 40 %,\n            looked at every 5 steps"));
  CHECK_THAT(early.out, Contains(fmt::format("after {} steps", reached.at("steps").get<int>())));
  CHECK_THAT(early.out, Contains(" s after the program's start\n"));
  CHECK(reached.at("status") == "finished");
  CHECK(reached.at("target_reached") == true);
  CHECK(reached.at("steps") < 60);
  CHECK(reached.at("validation_accuracy") >= 0.4);
  CHECK(reached.at("test_accuracy") > 0.3);
  CHECK(reached.at("seconds_since_start") >= reached.at("seconds"));
  const auto [late, missed] = run("100", "late");
  CHECK_THAT(late.out, Contains("target: 100 % not reached, the validation accuracy is "));
  CHECK(missed.at("target_reached") == false);
  CHECK(missed.at("steps") == 60);
  CHECK(missed.at("status") == "finished");
}

TEST_CASE("Progress is plain lines when stderr is no terminal, and nothing after -q") {
  const TrainWorkplace place;
  const Outcome talking = place.train({"--max-steps", "3", "--out", "a"});
  CHECK_THAT(talking.err, !Contains("\x1b") && !Contains("\r"));
  CHECK_THAT(talking.err, Contains("validation loss"));
  CHECK_THAT(talking.out, Contains("done: test accuracy "));
  const Outcome quiet = place.train({"--max-steps", "3", "--out", "b", "-q"});
  CHECK(quiet.err.empty());
  CHECK_THAT(quiet.out, Contains("done: test accuracy "));
}

TEST_CASE("On a terminal a bar shows how far training is, within 80 columns, and goes away") {
  if (!have_terminals()) return;
  const TrainWorkplace place;
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
  if (!have_terminals()) return;
  const TrainWorkplace place;
  const auto shown = [&](std::vector<std::string> words, const std::map<std::string, std::string>& environment) {
    return tandem_program(place.dir, words, {.environment = environment, .terminal = true}).err;
  };
  CHECK_THAT(shown({"eval", "nothing"}, {}), Contains("\x1b[31m"));
  CHECK_THAT(shown({"eval", "nothing"}, {{"NO_COLOR", "1"}}), !Contains("\x1b"));
  CHECK_THAT(shown({"eval", "nothing", "--color", "never"}, {}), !Contains("\x1b"));
}

TEST_CASE("Too little memory is exit code 6") {
#if defined(__SANITIZE_ADDRESS__)
  return;  // the sanitizer itself reserves terabytes
#endif
  const TrainWorkplace place;
  const Outcome outcome =
      place.train({"--out", "run", "--layers", "dense:100,relu,dense:5000000"}, {.max_memory = 1'000'000'000});
  CHECK(outcome.exit_code == 6);
  CHECK(!exists(place.dir.file("run")));
}
