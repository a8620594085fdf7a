// The command line: what is refused and how, help, output, exit codes.
#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "../catch.hpp"
#include "program.h"
#include "tandem/core/cuda.h"

using namespace tandem;
using namespace tandem::test;
using Catch::Matchers::Contains;

namespace {

struct Refusal {
  std::vector<std::string> arguments;
  int exit_code;
  std::string sentence;  // on stderr, after "tandem: "
};

std::string no_tenth_gpu() {
  const cuda::Devices& found = cuda::devices();
  return "cuda: " + (found.all.empty() ? found.why_none : "this machine has");
}

const std::vector<Refusal> refusals = {
    {{}, 2, "expected a command; `tandem --help` lists them"},
    {{"trian"}, 2, "unknown command 'trian'; did you mean train?"},
    {{"qqqqqqqq"}, 2, "unknown command 'qqqqqqqq'; `tandem --help` lists them"},
    {{"data"}, 2, "data: expected a command; `tandem data --help` lists them"},
    {{"data", "fetchh"}, 2, "data: unknown command 'fetchh'; did you mean fetch?"},
    {{"data", "fetch"}, 2, "fetch: expected NAME, got none; see `tandem data fetch -h`"},
    {{"train", "--nesterov", "--momentum", "0"}, 2, "--nesterov: expected a --momentum above 0, got 0"},
    {{"train", "--schedule", "one-cycle", "--warmup", "2"},
     2,
     "--warmup: expected 0 with --schedule one-cycle, which warms up by itself, got 2"},
    {{"train", "--config", "nothing"}, 1, "cannot read nothing: No such file or directory"},
    {{"train", "--epoch", "3"}, 2, "train: unknown flag --epoch; did you mean --epochs?"},
    {{"train", "--batchsize=3"}, 2, "train: unknown flag --batchsize; did you mean --batch-size?"},
    {{"train", "--frobnicate"}, 2, "train: unknown flag --frobnicate; `tandem train --help` lists them"},
    {{"train", "mnist"}, 2, "train: unexpected argument 'mnist'; see `tandem train -h`"},
    {{"train", "--lr", "fast"}, 2, "--lr: expected a number of at least 0, got 'fast'"},
    {{"train", "--lr", "-1"}, 2, "--lr: expected a number of at least 0, got '-1'"},
    {{"train", "--lr", "nan"}, 2, "--lr: expected a number of at least 0, got 'nan'"},
    {{"train", "--lr"}, 2, "--lr: expected a value, got none"},
    {{"train", "--momentum", "1.5"}, 2, "--momentum: expected a number of at least 0 and at most 1, got '1.5'"},
    {{"train", "--gamma", "0"}, 2, "--gamma: expected a number above 0 and at most 1, got '0'"},
    {{"train", "--epochs", "0"}, 2, "--epochs: expected an integer from 1 to 1000000, got '0'"},
    {{"train", "--epochs", "2.5"}, 2, "--epochs: expected an integer from 1 to 1000000, got '2.5'"},
    {{"train", "--max-steps", "-5"}, 2, "--max-steps: expected an integer of at least 0, got '-5'"},
    {{"train", "--seed", "99999999999999999999"},
     2,
     "--seed: expected an integer of at least 0, got '99999999999999999999'"},
    {{"train", "--batch-size", "many"}, 2, "--batch-size: expected an integer from 1 to 1000000, got 'many'"},
    {{"train", "--model", "w4"}, 2, "--model: expected mlp, w1, w2, w3, lenet, got 'w4'"},
    {{"train", "--optimizer", "adma"},
     2,
     "--optimizer: expected sgd, adam, adamw, got 'adma' (did you mean \"adam\"?)"},
    {{"train", "--preset", "fast9"}, 2, "--preset: expected fast99, got 'fast9' (did you mean \"fast99\"?)"},
    {{"train", "--preset", "fast99", "--config", "c.json"}, 2, "--preset excludes --config"},
    {{"train", "--preset", "fast99"}, 3, "mnist: expected the files train-images-idx3-ubyte"},
    {{"train", "--dataset", "digits", "--max-steps", "5", "--eval-from", "6"},
     2,
     "--eval-from: expected at most the 5 steps of this run, got 6"},
    {{"train", "--target", "101"}, 2, "--target: expected a number of at least 0 and at most 100, got '101'"},
    {{"compare", "--target", "99"}, 2, "compare: unknown flag --target"},
    {{"train", "--bn", "yes"}, 2, "--bn: expected on, off, got 'yes'"},
    {{"train", "--layers", ""}, 2, "--layers: expected layers such as dense:10, got none"},
    {{"train", "--model", "w1", "--layers", "dense:10"}, 2, "--model excludes --layers"},
    {{"train", "--device", "gpu"}, 2, "--device: expected cpu, cuda or cuda:I, got 'gpu'"},
    {{"train", "--device", "cuda:9"}, 7, no_tenth_gpu()},
    {{"train", "--dataset", "mnist"}, 3, "mnist: expected the files train-images-idx3-ubyte"},
    {{"train", "--data", "nowhere"}, 3, "mnist: expected the files train-images-idx3-ubyte"},
    {{"eval"}, 2, "eval: expected MODEL, got none; see `tandem eval -h`"},
    {{"eval", "nothing"}, 4, "nothing: expected a run directory or a model file, there is none"},
    {{"eval", "."}, 4, ".: expected model.safetensors in this folder, there is none; did its run end?"},
    {{"predict", "nothing", "x.png"}, 4, "nothing: expected a run directory or a model file, there is none"},
    {{"inspect", "nothing"}, 4, "nothing: expected a run directory or a model file, there is none"},
};

std::string join(const std::vector<std::string>& words) {
  std::string out = "tandem";
  for (const std::string& word : words) out += " " + word;
  return out;
}

const std::vector<std::string> commands = {"train", "compare", "eval",    "predict", "inspect",
                                           "data",  "bench",   "devices", "version"};

}  // namespace

TEST_CASE("A wrong command line gets one sentence, its exit code, and changes nothing") {
  for (const Refusal& refusal : refusals) {
    INFO(join(refusal.arguments));
    const TempDir dir;
    const Outcome outcome = tandem_program(dir, refusal.arguments);
    CHECK(outcome.exit_code == refusal.exit_code);
    CHECK(outcome.out.empty());
    CHECK(std::count(outcome.err.begin(), outcome.err.end(), '\n') == 1);
    CHECK_THAT(outcome.err, Catch::Matchers::StartsWith("tandem: " + refusal.sentence));
    CHECK(files_in(dir.path()).empty());
  }
}

TEST_CASE("Every command explains itself within 80 columns") {
  const TempDir dir;
  for (const std::string& command : commands) {
    INFO(command);
    const Outcome full = tandem_program(dir, {command, "--help"}), brief = tandem_program(dir, {command, "-h"});
    CHECK(full.exit_code == 0);
    CHECK(brief.exit_code == 0);
    CHECK(full.err.empty());
    CHECK(brief.out.size() < full.out.size());
    for (const char* part : {"Usage: tandem ", "Examples:\n", "Exit codes:\n"}) CHECK_THAT(full.out, Contains(part));
    std::istringstream lines(full.out);
    for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 80);
  }
  const Outcome top = tandem_program(dir, {"--help"});
  CHECK(top.exit_code == 0);
  for (const std::string& command : commands) CHECK_THAT(top.out, Contains("\n  " + command + " "));
}

TEST_CASE("train --help names defaults and hides aliases, which work") {
  const TempDir dir;
  const std::string help = tandem_program(dir, {"train", "--help"}).out;
  for (const char* text : {"-b, --batch-size N", "--lr X", "[0.9]", "[cosine]", "--weight-decay X", "-o, --out DIR"}) {
    CHECK_THAT(help, Contains(text));
  }
  CHECK_THAT(help, !Contains("--learning-rate") && !Contains("--wd"));
  write_small_mnist(dir.file("data"), 600, 100);
  const Outcome aliases =
      tandem_program(dir, {"train", "--dataset", "mnist", "--data", "data", "--dry-run", "--json", "-b", "50",
                           "--learning-rate", "0.25", "--wd", "0.001", "-o", "x", "-j", "1"});
  REQUIRE(aliases.exit_code == 0);
  const auto settings = nlohmann::json::parse(aliases.out);
  CHECK(settings.at("batch_size") == 50);
  CHECK(settings.at("lr") == 0.25);
  CHECK(settings.at("weight_decay") == 0.001);
  CHECK(settings.at("threads") == 1);
  const Outcome habits = tandem_program(
      dir, {"train", "--dataset", "mnist", "--data_path", "data", "--dry-run", "--json", "--minibatch_size", "25",
            "--learning_rate", "0.5", "--workers", "2", "--log-interval", "3", "--print-freq", "4"});
  REQUIRE(habits.exit_code == 0);
  const auto found = nlohmann::json::parse(habits.out);
  CHECK(found.at("batch_size") == 25);
  CHECK(found.at("lr") == 0.5);
  CHECK(found.at("threads") == 2);
  CHECK(found.at("log_every") == 4);
}

TEST_CASE("version and devices describe this build") {
  const TempDir dir;
  CHECK(tandem_program(dir, {"--version"}).out == "tandem 0.1.0\n");
  const auto version = nlohmann::json::parse(tandem_program(dir, {"version", "--json"}).out);
  for (const char* key : {"version", "commit", "compiler", "cpu_path", "blas", "cuda"}) CHECK(version.contains(key));
  for (const char* word : {"tandem 0.1.0", "commit", "compiler", "CPU path", "BLAS", "CUDA"}) {
    CHECK_THAT(tandem_program(dir, {"version"}).out, Contains(word));
  }
  const auto devices = nlohmann::json::parse(tandem_program(dir, {"devices", "--json"}).out).at("devices");
  CHECK(devices.at(0).at("device") == "cpu");
  CHECK(devices.at(0).at("cores").get<int>() >= 1);
  const bool gpu = cuda::devices().all.size() > 0;
  CHECK(version.at("cuda") == gpu);
  CHECK(devices.at(1).at("available") == gpu);
  if (gpu)
    CHECK(devices.at(1).at("name") == cuda::devices().all[0].name);
  else
    CHECK(devices.at(1).at("reason") == cuda::devices().why_none);
}

TEST_CASE("A result that cannot be printed is a failure") {
  const TempDir dir;
  const Outcome outcome = tandem_program(dir, {"version"}, {.out_path = "/dev/full"});
  CHECK(outcome.exit_code == 1);
  CHECK(outcome.err == "tandem: standard output: No space left on device\n");
}

TEST_CASE("A pipe that nobody reads is a failure with a sentence, and JSON holds any path") {
  const TempDir dir;
  const Outcome outcome = tandem_program(dir, {"version"}, {.broken_pipe = true});
  CHECK(outcome.exit_code == 1);
  CHECK(outcome.err == "tandem: standard output: Broken pipe\n");

  write_small_mnist(dir.file("data"), 600, 100);
  const Outcome run = tandem_program(dir, {"train", "--dataset", "mnist", "--data", "data", "--layers", "dense:10",
                                           "--max-steps", "1", "--out", "r\xff", "--json"});
  CHECK(run.exit_code == 0);
  CHECK(nlohmann::json::parse(run.out).at("out") == "r\xef\xbf\xbd");
}

TEST_CASE("Colours appear when asked for, and not elsewhere than on a terminal") {
  const TempDir dir;
  CHECK_THAT(tandem_program(dir, {"eval", "nothing", "--color", "always"}).err,
             Catch::Matchers::StartsWith("\x1b[31mtandem: \x1b[0m"));
  CHECK_THAT(tandem_program(dir, {"eval", "nothing"}).err, !Contains("\x1b"));
}
