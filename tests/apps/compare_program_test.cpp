// tandem compare as a user drives it.
#include <signal.h>

#include <chrono>
#include <cmath>
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

  CHECK(files_in(place.dir.file("run")) == std::vector<std::string>{"RESULT.json", "report.html", "seed1_bn",
                                                                    "seed1_plain", "seed2_bn", "seed2_plain",
                                                                    "seed3_bn", "seed3_plain"});
  std::istringstream log(read_text(place.dir.file("run/seed2_bn/metrics.jsonl")));
  int validations = 0;
  for (std::string line; std::getline(log, line);) validations += Json::parse(line).at("split") == "validation";
  CHECK(validations == int(seeds[1].at("bn").at("curve").at("step").size()));
  CHECK_THAT(read_text(place.dir.file("run/report.html")),
             Contains("</html>") && Contains("with and without batch norm"));
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
      place.compare({"--seeds", "1..2", "--max-steps", "60", "--lr", "1e12", "--out", "run", "--json"});
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
  Program program(place.dir, place.command({"--seeds", "1..200", "--epochs", "2", "--out", "run"}));
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
        std::vector<std::string>{"RESULT.json", "report.html", "seed3_bn", "seed3_plain"});
}
