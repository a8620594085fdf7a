// tandem compare as a user drives it.
#include <signal.h>

#include <chrono>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <thread>

#include "../catch.hpp"
#include "program.h"

using namespace tandem;
using namespace tandem::test;
using Catch::Matchers::Contains;
using Json = nlohmann::json;

namespace {

struct Workplace {
  TempDir dir;
  Workplace() { write_small_mnist(dir.file("data/mnist"), 1200, 300); }

  std::vector<std::string> command(const std::vector<std::string>& more) const {
    std::vector<std::string> words = {
        "compare",      "--dataset", "mnist",        "--data", "data", "--layers", "dense:32,bn,relu,dense:10",
        "--batch-size", "50",        "--eval-every", "10"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  Outcome compare(const std::vector<std::string>& more) const { return tandem_program(dir, command(more)); }
  Json result(const std::string& run) const { return Json::parse(read_text(dir.file(run + "/RESULT.json"))); }
};

// Everything but what a clock says.
Json without_times(Json result) {
  for (const char* key : {"seconds", "arms_in_parallel", "pairs_in_parallel", "environment", "findings"})
    result.erase(key);
  for (Json& seed : result["seeds"])
    for (const char* arm : {"plain", "bn"})
      for (const char* key : {"seconds", "seconds_to"}) {
        seed[arm].erase(key);
        seed[arm]["curve"].erase("seconds");
      }
  for (const char* key : {"seconds", "seconds_to_90", "seconds_to_95", "seconds_to_97"}) result["summary"].erase(key);
  return result;
}

}  // namespace

TEST_CASE("compare trains both arms alike and proves it") {
  const Workplace place;
  const Outcome outcome = place.compare({"--seeds", "1..3", "--epochs", "2", "--out", "run", "--json"});
  INFO(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  Json printed = Json::parse(outcome.out);
  CHECK(printed.at("out") == "run");
  printed.erase("out");
  const Json result = place.result("run");
  CHECK(printed == result);

  CHECK(result.at("status") == "finished");
  CHECK(result.at("aa_difference") == 0);
  CHECK(result.at("dataset") == "mnist");
  // 784*32+32+330 and, without the bias before it, gamma and beta.
  CHECK(result.at("arms").at("plain").at("parameters") == 25450);
  CHECK(result.at("arms").at("bn").at("parameters") == 25482);
  const Json& seeds = result.at("seeds");
  REQUIRE(seeds.size() == 3);
  std::set<std::string> weights, batches;
  for (const Json& seed : seeds) {
    const Json &plain = seed.at("plain"), &bn = seed.at("bn");
    for (const char* hash : {"weights_sha256", "batches_sha256"}) {
      CHECK(plain.at(hash) == bn.at(hash));
      CHECK(plain.at(hash).get<std::string>().size() == 64);
    }
    weights.insert(plain.at("weights_sha256"));
    batches.insert(plain.at("batches_sha256"));
    CHECK(plain.at("curve").at("step") == bn.at("curve").at("step"));
    CHECK(plain.at("curve").at("step").front() == 10);
    CHECK(plain.at("curve").at("step").back() == result.at("steps"));
    CHECK(bn.at("test_accuracy").get<double>() > 0.3);
    CHECK(bn.at("test_accuracy") != plain.at("test_accuracy"));
  }
  CHECK(weights.size() == 3);  // seeds differ from one another
  CHECK(batches.size() == 3);

  // The summary is that of the seeds.
  double mean = 0;
  for (const Json& seed : seeds)
    mean += (seed.at("bn").at("test_accuracy").get<double>() - seed.at("plain").at("test_accuracy").get<double>()) / 3;
  const Json& difference = result.at("summary").at("test_accuracy").at("difference");
  CHECK(difference.at("mean").get<double>() == Approx(mean).margin(1e-12));
  CHECK(difference.at("interval95").at(0).get<double>() < mean);
  CHECK(difference.at("per_seed").size() == 3);

  CHECK(files_in(place.dir.file("run")) == std::vector<std::string>{"RESULT.json", "config.json", "report.html",
                                                                    "seed1_bn", "seed1_plain", "seed2_bn",
                                                                    "seed2_plain", "seed3_bn", "seed3_plain"});
  const Outcome eval = tandem_program(place.dir, {"eval", "run/seed2_bn", "--data", "data", "--json"});
  CHECK(eval.exit_code == 0);
  CHECK(Json::parse(eval.out).at("accuracy") == seeds[1].at("bn").at("test_accuracy"));
  const Json config = Json::parse(read_text(place.dir.file("run/seed2_plain/config.json")));
  CHECK(config.at("seed") == 2);
  CHECK(config.at("bn") == false);
  CHECK(exists(place.dir.file("run/seed2_plain/env.json")));
  std::istringstream log(read_text(place.dir.file("run/seed2_bn/metrics.jsonl")));
  int validations = 0;
  for (std::string line; std::getline(log, line);) validations += Json::parse(line).at("split") == "validation";
  CHECK(validations == int(seeds[1].at("bn").at("curve").at("step").size()));
  CHECK_THAT(read_text(place.dir.file("run/report.html")),
             Contains("</html>") && Contains("with and without batch norm"));
}

TEST_CASE("compare --config does a comparison again") {
  const Workplace place;
  REQUIRE(place.compare({"--seeds", "2,5", "--max-steps", "20", "--clip", "1", "--out", "one"}).exit_code == 0);
  REQUIRE(tandem_program(place.dir, {"compare", "--config", "one/config.json", "--out", "two"}).exit_code == 0);
  CHECK(without_times(place.result("one")) == without_times(place.result("two")));
}

TEST_CASE("compare --dry-run checks and describes the comparison and does nothing") {
  const Workplace place;
  const Outcome outcome = place.compare({"--seeds", "2,5", "--dry-run"});
  CHECK(outcome.exit_code == 0);
  CHECK_THAT(outcome.out, Contains("custom on mnist, 2 seeds, 66 steps each") && Contains("\"batch_size\": 50"));
  CHECK(place.compare({"--warmup", "99", "--dry-run"}).exit_code == 2);
  CHECK(files_in(place.dir.path()) == std::vector<std::string>{"data"});
}

TEST_CASE("A comparison does not depend on threads or on what else is compared") {
  const Workplace place;
  REQUIRE(place.compare({"--seeds", "1..2", "--max-steps", "30", "--out", "one", "--threads", "1"}).exit_code == 0);
  REQUIRE(place.compare({"--seeds", "1..2", "--max-steps", "30", "--out", "two", "--threads", "2"}).exit_code == 0);
  REQUIRE(place.compare({"--seeds", "1..2", "--max-steps", "30", "--out", "four", "--threads", "4"}).exit_code == 0);
  REQUIRE(place.compare({"--seeds", "2", "--max-steps", "30", "--out", "alone", "--threads", "2"}).exit_code == 0);
  const Json one = without_times(place.result("one"));
  CHECK(one == without_times(place.result("two")));
  CHECK(one == without_times(place.result("four")));
  CHECK(one.at("seeds").at(1) == without_times(place.result("alone")).at("seeds").at(0));
  CHECK(place.result("one").at("arms_in_parallel") == false);
  CHECK(place.result("two").at("arms_in_parallel") == true);
  CHECK(place.result("four").at("pairs_in_parallel") == 2);
}

TEST_CASE("compare --preset null finds no difference between a network and itself") {
  const Workplace place;
  const Outcome outcome = place.compare({"--preset", "null", "--seeds", "1..2", "--out", "run", "--json"});
  INFO(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  const Json result = place.result("run");
  CHECK(result.at("aa_difference") == 0);
  CHECK(result.at("aa_steps") == result.at("steps"));
  CHECK(result.at("arms").contains("again"));
  for (const Json& seed : result.at("seeds"))
    CHECK(seed.at("plain").at("curve").at("train_loss") == seed.at("again").at("curve").at("train_loss"));
  CHECK_THAT(result.at("findings").at(0).get<std::string>(), Contains("difference exactly 0"));
}

TEST_CASE("The table of a comparison fits a terminal and one seed claims nothing") {
  const Workplace place;
  const Outcome outcome = place.compare({"--seeds", "4", "--max-steps", "20", "--out", "run"});
  REQUIRE(outcome.exit_code == 0);
  std::istringstream lines(outcome.out);
  for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 80);
  CHECK_THAT(outcome.out, Contains("test accuracy %") && Contains("steps to 97 %") && Contains("on mnist"));
  CHECK_THAT(outcome.out, Contains("support no claim") && Contains("A/A difference: 0") && Contains("run/report.html"));
  CHECK_THAT(
      outcome.out,
      Contains(place.result("run").at("seeds").at(0).at("bn").at("weights_sha256").get<std::string>().substr(0, 20)));
}

TEST_CASE("A diverged arm is a result, not an error") {
  const Workplace place;
  const Outcome outcome =
      place.compare({"--seeds", "1..2", "--max-steps", "60", "--lr", "1e3", "--out", "run", "--json"});
  INFO(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  const Json result = place.result("run");
  bool any = false;
  for (const Json& seed : result.at("seeds"))
    for (const char* arm : {"plain", "bn"}) {
      const Json& run = seed.at(arm);
      any |= run.at("diverged").get<bool>();
      CHECK(run.at("test_accuracy").is_null() == run.at("diverged").get<bool>());
      CHECK(run.at("steps_to").at("97").is_null());
    }
  CHECK(any);
  CHECK(result.at("summary").at("test_accuracy").at("difference").at("mean").is_null());
  CHECK_THAT(read_text(place.dir.file("run/report.html")), Contains("diverged in"));
}

TEST_CASE("An interrupted comparison keeps the seeds that finished") {
  const Workplace place;
  Program program(place.dir, place.command({"--seeds", "1..200", "--epochs", "2", "--threads", "2", "--out", "run"}));
  for (int i = 0; i < 6000 && !exists(place.dir.file("run/seed3_bn/metrics.jsonl")); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  program.signal(SIGINT);
  const Outcome outcome = program.wait();
  INFO(outcome.err);
  CHECK(outcome.exit_code == 130);
  const Json result = place.result("run");
  CHECK(result.at("status") == "interrupted");
  CHECK(result.at("seeds").size() >= 1);
  CHECK(result.at("seeds").size() < 200);
  CHECK(result.at("seeds").at(0).at("bn").at("steps") == result.at("steps"));
  CHECK_THAT(read_text(place.dir.file("run/report.html")), Contains("Interrupted"));
}

TEST_CASE("compare refuses what it cannot do, in one sentence") {
  const Workplace place;
  auto refused = [&](const std::vector<std::string>& words, int code, const std::string& sentence) {
    const Outcome outcome = tandem_program(place.dir, words);
    CAPTURE(words, outcome.err);
    CHECK(outcome.exit_code == code);
    CHECK(outcome.out.empty());
    CHECK_THAT(outcome.err, Contains(sentence));
    CHECK_FALSE(exists(place.dir.file("no")));
  };
  refused({"compare", "--data", "data", "--layers", "dense:10", "--out", "no"}, 2,
          "expected layers with a bn to leave out, got");
  refused({"compare", "--preset", "quik", "--out", "no"}, 2, "quick");
  refused({"compare", "--seeds", "5..1", "--out", "no"}, 2, "--seeds: expected distinct seeds");
  refused({"compare", "--dataset", "mnist", "--data", "elsewhere", "--out", "no"}, 3, "elsewhere");
  refused({"compare", "--device", "cuda", "--out", "no"}, 7, "cuda");

  REQUIRE(place.compare({"--seeds", "1..2", "--max-steps", "10", "--out", "run"}).exit_code == 0);
  const std::string before = read_text(place.dir.file("run/RESULT.json"));
  const Outcome again = place.compare({"--seeds", "3", "--max-steps", "10", "--out", "run"});
  CHECK(again.exit_code == 1);
  CHECK_THAT(again.err, Contains("--force"));
  CHECK(read_text(place.dir.file("run/RESULT.json")) == before);
  REQUIRE(place.compare({"--seeds", "3", "--max-steps", "10", "--out", "run", "--force"}).exit_code == 0);
  CHECK(files_in(place.dir.file("run")) ==
        std::vector<std::string>{"RESULT.json", "config.json", "report.html", "seed3_bn", "seed3_plain"});
}

TEST_CASE("compare --force touches no run but those of the comparison it replaces") {
  const Workplace place;
  const std::vector<std::string> train = {"train",       "--dataset", "mnist",   "--data", "data",
                                          "--max-steps", "2",         "--model", "w2",     "--out"};
  const auto train_to = [&](const std::string& out) {
    std::vector<std::string> words = train;
    words.push_back(out);
    REQUIRE(tandem_program(place.dir, words).exit_code == 0);
    return read_text(place.dir.file(out + "/model.safetensors"));
  };
  const std::string a = train_to("runs/a");
  const Outcome refused = place.compare({"--seeds", "1", "--max-steps", "10", "--out", "runs", "--force"});
  CHECK(refused.exit_code == 1);
  CHECK(read_text(place.dir.file("runs/a/model.safetensors")) == a);

  REQUIRE(place.compare({"--seeds", "1", "--max-steps", "10", "--out", "runs/mine"}).exit_code == 0);
  const std::string b = train_to("runs/mine/b");
  std::ofstream(place.dir.file("runs/mine/seed1_bn/notes.txt")) << "mine";
  const Outcome late =
      place.compare({"--seeds", "2", "--warmup", "99", "--max-steps", "10", "--out", "runs/mine", "--force"});
  CHECK(late.exit_code == 2);
  CHECK(exists(place.dir.file("runs/mine/seed1_plain/model.safetensors")));
  REQUIRE(place.compare({"--seeds", "2", "--max-steps", "10", "--out", "runs/mine", "--force"}).exit_code == 0);
  CHECK(read_text(place.dir.file("runs/mine/b/model.safetensors")) == b);
  CHECK(files_in(place.dir.file("runs/mine/seed1_bn")) == std::vector<std::string>{"notes.txt"});
  CHECK(!exists(place.dir.file("runs/mine/seed1_plain")));
}

TEST_CASE("A comparison that cannot go on keeps the seeds that finished") {
  const Workplace place;
  std::filesystem::create_directory(place.dir.file("run"));
  std::ofstream(place.dir.file("run/RESULT.json")) << "{\"tool\": \"tandem\", \"command\": \"compare\"}";
  std::ofstream(place.dir.file("run/seed3_plain")) << "no folder";
  const Outcome outcome =
      place.compare({"--seeds", "1..4", "--max-steps", "10", "--threads", "2", "--out", "run", "--force"});
  CHECK(outcome.exit_code == 1);
  CHECK_THAT(outcome.err, Contains("tandem: run directory run/seed3_plain: Not a directory\n"));
  CHECK_THAT(outcome.out, Contains("Interrupted: 2 of 4 seeds finished."));
  CHECK(place.result("run").at("seeds").size() == 2);
  CHECK_THAT(read_text(place.dir.file("run/report.html")), Contains("</html>"));
}

TEST_CASE("A comparison in which every run diverged is exit code 5") {
  const Workplace place;
  const Outcome outcome = tandem_program(
      place.dir, {"compare", "--dataset", "mnist", "--data", "data", "--layers",
                  "dense:32:init=normal(0, 1e38),bn,dense:32:init=normal(0, 1e38),dense:10:init=normal(0, 1e38)",
                  "--seeds", "1", "--max-steps", "10", "--out", "run"});
  CHECK(outcome.exit_code == 5);
  CHECK_THAT(outcome.err, Contains("tandem: every run diverged"));
  CHECK_THAT(outcome.out, Contains("diverged in 1 of 1 seeds"));
  CHECK(exists(place.dir.file("run/report.html")));
}
