// tandem bench: the interface that comparisons of speed rely on. Speed itself is not tested.
#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

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
  Outcome bench(const std::vector<std::string>& more, const ProgramOptions& options = {}) const {
    std::vector<std::string> words = {"bench", "--data", "data", "--seconds", "0.1"};
    words.insert(words.end(), more.begin(), more.end());
    return tandem_program(dir, words, options);
  }
};

std::vector<Json> rows(const Outcome& outcome) {
  std::vector<Json> rows;
  std::istringstream lines(outcome.out);
  for (std::string line; std::getline(lines, line);) rows.push_back(Json::parse(line));
  return rows;
}

}  // namespace

TEST_CASE("bench prints one JSON object a measurement, with the agreed keys") {
  const Workplace place;
  const Outcome outcome = place.bench({"--workload", "w2", "--bn", "on", "--threads", "1", "--reps", "2", "--json"});
  INFO(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  const auto all = rows(outcome);
  REQUIRE(all.size() == 2);
  for (const Json& row : all) {
    CHECK(row.at("tool") == "tandem");
    CHECK(row.at("workload") == "w2");
    CHECK(row.at("bn") == "on");
    CHECK(row.at("batch") == 128);
    CHECK(row.at("threads") == 1);
    CHECK(row.at("device") == "cpu");
    CHECK(row.at("precision") == "fp32");
    CHECK(row.at("dataset") == "mnist");
    CHECK(row.at("version").is_string());
    const double ms = row.at("ms_per_step");
    CHECK(row.at("p10").get<double>() <= ms);
    CHECK(row.at("p90").get<double>() >= ms);
    CHECK(row.at("samples_per_s").get<double>() == Approx(128e3 / ms));
    CHECK(row.at("peak_rss_mb").get<double>() > 5);
    CHECK(row.contains("first_step_s") == (row.at("rep") == 0));
    CHECK(row.at("loss_first").get<double>() > 1.5);  // untrained, of ten classes
    CHECK(row.at("loss_last").get<double>() < row.at("loss_first").get<double>());
  }
  CHECK(all[0].at("loss_first") == all[1].at("loss_first"));  // fresh models, the same batches
}

TEST_CASE("bench runs a pair at once on two threads, in turn on one") {
  const Workplace place;
  for (const char* threads : {"1", "2", "4"}) {
    CAPTURE(threads);
    const Outcome outcome =
        place.bench({"--workload", "w1", "--bn", "pair", "--threads", threads, "--eager", "--json"});
    INFO(outcome.err);
    REQUIRE(outcome.exit_code == 0);
    const Json row = rows(outcome).at(0);
    CHECK(row.at("batch") == 60);
    if (std::string(threads) == "1") CHECK(row.at("arms") == "in turn");
    if (std::string(threads) == "2") CHECK(row.at("arms") == "at once");
    CHECK(row.at("samples_per_s").get<double>() == Approx(120e3 / row.at("ms_per_step").get<double>()));
    if (row.at("arms") == "at once")
      CHECK(row.at("ms_per_step") == std::max(row.at("ms_on").get<double>(), row.at("ms_off").get<double>()));
    for (const char* key : {"loss_first_on", "loss_first_off", "loss_last_on", "loss_last_off"})
      CHECK(std::isfinite(row.at(key).get<double>()));
    CHECK_FALSE(row.contains("loss_first"));
    CHECK(row.at("loss_first_on") != row.at("loss_first_off"));
  }
}

TEST_CASE("bench trains in double precision and on another batch size") {
  const Workplace place;
  const Outcome outcome =
      place.bench({"--workload", "w1", "--bn", "off", "--precision", "fp64", "--batch-size", "20", "--json"});
  INFO(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  const Json row = rows(outcome).at(0);
  CHECK(row.at("precision") == "fp64");
  CHECK(row.at("batch") == 20);
  const Outcome single = place.bench({"--workload", "w1", "--bn", "off", "--batch-size", "20", "--json"});
  const double first = rows(single).at(0).at("loss_first");
  CHECK(row.at("loss_first") != first);
  CHECK(row.at("loss_first").get<double>() == Approx(first).epsilon(1e-5));
}

TEST_CASE("bench without --json prints a table within 80 columns") {
  const Workplace place;
  const Outcome outcome = place.bench({"--workload", "w1", "--bn", "pair", "--threads", "2"});
  REQUIRE(outcome.exit_code == 0);
  std::istringstream lines(outcome.out);
  for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 80);
  CHECK_THAT(outcome.out, Contains("ms/step") && Contains("w1") && Contains("pair") && Contains("2 threads"));
}

TEST_CASE("bench warns of a forced OpenBLAS core type and names the data it used") {
  const TempDir empty;
  const Outcome outcome = tandem_program(empty, {"bench", "--workload", "w1", "--seconds", "0.05", "--json"},
                                         {.environment = {{"OPENBLAS_CORETYPE", "Haswell"}}});
  REQUIRE(outcome.exit_code == 0);
  CHECK_THAT(outcome.err, Contains("OPENBLAS_CORETYPE=Haswell is set"));
  CHECK(rows(outcome).at(0).at("dataset") == "digits");
}

TEST_CASE("bench --kernels prints finite figures of every kernel, as a table or as JSON") {
  const TempDir empty;
  const Outcome json = tandem_program(empty, {"bench", "--kernels", "--seconds", "0.001", "--json"});
  INFO(json.err);
  REQUIRE(json.exit_code == 0);
  const auto all = rows(json);
  CHECK(all.size() > 40);
  for (const Json& row : all) {
    CAPTURE(row.dump());
    CHECK(row.at("kernel").is_string());
    CHECK(row.at("rounds").get<int>() >= 1);
    for (const char* key : {"rate", "low", "high", "peak_gflops"}) CHECK(std::isfinite(row.at(key).get<double>()));
    CHECK(row.at("peak_gflops").get<double>() > 0);
    if (row.at("kernel") != "tape, a node") CHECK(row.at("rate").get<double>() > 0);  // that one is a difference
    CHECK(row.contains("of_peak") == (row.at("unit") == "GF/s"));
  }
  const Outcome text = tandem_program(empty, {"bench", "--kernels", "--seconds", "0.001"});
  REQUIRE(text.exit_code == 0);
  std::istringstream lines(text.out);
  for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 80);
  CHECK_THAT(text.out, Contains("w3 conv3 dw") && Contains("of peak"));
}

TEST_CASE("bench --growth prints a row for each size, and draws it") {
  const Workplace place;
  const std::vector<std::string> words = {"--growth", "all", "--largest", "16", "--seconds", "0.001", "--reps", "2"};
  auto with = [&](std::vector<std::string> more) {
    more.insert(more.end(), words.begin(), words.end());
    return place.bench(more);
  };
  const Outcome json = with({"--json"});
  INFO(json.err);
  REQUIRE(json.exit_code == 0);
  const auto all = rows(json);
  CHECK(all.size() == 3 + 3 + 3 + 1);  // batch twice: 1, 4, 16; depth: 2, 5, 10; width: 16
  for (const Json& row : all) {
    CAPTURE(row.dump());
    CHECK(row.at("rounds").size() == 2);
    CHECK(row.at("ms_per_step").get<double>() > 0);
    CHECK(row.at("per_unit").get<double>() > 0);
    CHECK(row.contains("off_line") == (row.at("series") == "depth"));
  }
  const Outcome text = with({"--svg", place.dir.path()});
  REQUIRE(text.exit_code == 0);
  std::istringstream lines(text.out);
  for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 80);
  CHECK_THAT(read_text(place.dir.file("growth_depth.svg")), Contains("us a block"));
  CHECK(exists(place.dir.file("growth_batch_w3.svg")));
}

TEST_CASE("bench refuses what this build cannot time") {
  const Workplace place;
  for (const char* precision : {"tf32", "bf16"}) {
    const Outcome outcome = place.bench({"--precision", precision});
    CHECK(outcome.exit_code == 7);
    CHECK_THAT(outcome.err, Contains("expected a CUDA device, got cpu"));
  }
  CHECK(place.bench({"--precision", "fp16"}).exit_code == 2);
  CHECK(place.bench({"--workload", "w4"}).exit_code == 2);
  CHECK(place.bench({"--seconds", "0"}).exit_code == 2);
  CHECK(place.bench({"--growth", "height"}).exit_code == 2);
  CHECK(place.bench({"--device", "cuda"}).exit_code == 7);
  CHECK(place.bench({"--dtype", "float64"}).exit_code == 2);
}
