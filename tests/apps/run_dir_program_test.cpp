// The folder of a run: whose it is, what --force replaces, and what is left when something fails.
#include <signal.h>

#include <fstream>

#include "../catch.hpp"
#include "train_workplace.h"

using namespace tandem;
using namespace tandem::test;
using Catch::Matchers::Contains;

TEST_CASE("A finished run is not overwritten unless asked, and then only its own files are") {
  const TrainWorkplace place;
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
  const TrainWorkplace place;
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
  const TrainWorkplace place;
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
  const TrainWorkplace place;
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
  const TrainWorkplace place;
  Program first(place.dir, place.command({"--epochs", "100000", "--out", "run"}));
  wait_for_file(place.dir.file("run/metrics.jsonl"), 1);
  const Outcome second = place.train({"--max-steps", "2", "--out", "run", "--force"});
  CHECK(second.exit_code == 1);
  CHECK_THAT(second.err, Contains("tandem: run directory run: another process is writing there\n"));
  first.signal(SIGTERM);
  CHECK(first.wait().exit_code == 143);
  CHECK(place.result("run").at("status") == "interrupted");
}

TEST_CASE("A full disk is a sentence and exit code 1, and no file is half written") {
  const TrainWorkplace place;
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
  const TrainWorkplace place;
  const Outcome outcome = tandem_program(place.dir,
                                         {"train", "--dataset", "mnist", "--data", "data", "--layers", "dense:10",
                                          "--epochs", "2000", "--log-every", "1", "--out", "run"},
                                         {.max_file_size = 40'000});
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("tandem: cannot write run/") && Contains(": File too large\n"));
  CHECK_THAT(outcome.out, Contains("interrupted: test accuracy "));
  CHECK(place.result("run").at("status") == "interrupted");
  CHECK(place.metrics("run").size() > 100);
  CHECK(tandem_program(place.dir, {"eval", "run", "--data", "data"}).exit_code == 0);
}

TEST_CASE("What cannot be done leaves no run directory behind") {
  const TrainWorkplace place;
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
