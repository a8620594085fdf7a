// tandem claims as a user drives it.
#include <nlohmann/json.hpp>

#include "../catch.hpp"
#include "../helpers.h"
#include "program.h"

using namespace tandem;
using namespace tandem::test;
using Catch::Matchers::Contains;
using Json = nlohmann::json;

TEST_CASE("claims shows single claims in full and writes nothing") {
  const TempDir dir;
  const Outcome outcome = tandem_program(dir, {"claims", "tf4", "PT1"});
  CHECK(outcome.exit_code == 0);
  CHECK(outcome.err.empty());
  CHECK_THAT(outcome.out, Contains("TF4  refuted\n") && Contains("PT1  refuted\n") && Contains("+-0.9999978") &&
                              Contains("\n  says      ") && Contains("\n  measured  ") && Contains("\n  so        "));
  CHECK_FALSE(exists(dir.file("runs")));
  for (size_t begin = 0, end; begin < outcome.out.size(); begin = end + 1) {
    end = outcome.out.find('\n', begin);
    CHECK(end - begin <= 80);
  }
}

TEST_CASE("claims replaces its own run with --force, and no other") {
  const TempDir dir;
  const std::vector<std::string> command = {"claims", "PT1", "--out", "run"};
  CHECK(tandem_program(dir, command).exit_code == 0);
  CHECK(Json::parse(read_text(dir.file("run/RESULT.json"))).at("status") == "finished");
  CHECK(tandem_program(dir, command).exit_code == 1);
  std::vector<std::string> force = command;
  force.push_back("--force");
  const Outcome again = tandem_program(dir, force);
  INFO(again.err);
  CHECK(again.exit_code == 0);
  const Outcome other = tandem_program(dir, {"train", "--max-steps", "1", "--out", "run", "--force"});
  CHECK(other.exit_code == 1);
  CHECK_THAT(other.err, Contains("it holds what `tandem claims` wrote; choose another --out\n"));
}

TEST_CASE("claims refuses what it does not know") {
  const TempDir dir;
  const Outcome outcome = tandem_program(dir, {"claims", "TF6"});
  CHECK(outcome.exit_code == 2);
  CHECK_THAT(outcome.err, Contains("expected one of TF1 to TF5 and PT1 to PT5, got \"TF6\""));
  CHECK(outcome.out.empty());
}

TEST_CASE("claims examines all ten on MNIST in the short form", "[mnist]") {
  const auto data = require_mnist();
  if (!data) return;
  const TempDir dir;
  const Outcome outcome = tandem_program(dir, {"claims", "--fast", "--json", "--out", "run", "--data", *data});
  INFO(outcome.err);
  REQUIRE(outcome.exit_code == 0);
  Json printed = Json::parse(outcome.out);
  CHECK(printed.at("dataset") == "mnist");
  const std::map<std::string, std::string> exact = {
      {"TF2", "holds"}, {"TF3", "holds"}, {"TF4", "refuted"}, {"PT1", "refuted"},
      {"PT2", "holds"}, {"PT3", "holds"}, {"PT4", "holds"},   {"PT5", "holds with nuance"}};
  std::vector<std::string> ids;
  for (const Json& claim : printed.at("claims")) {
    const std::string id = claim.at("id"), verdict = claim.at("verdict");
    ids.push_back(id);
    INFO(id << " " << claim.at("measured"));
    if (exact.count(id)) CHECK(verdict == exact.at(id));
    CHECK_FALSE(claim.at("measurements").empty());
    // Batch norm trains the sigmoid net, which without it stays near chance, in every seed by far.
    if (id == "TF5") CHECK(verdict != "refuted");
    if (id == "TF1") CHECK(verdict != "holds");
  }
  CHECK(ids == std::vector<std::string>{"TF1", "TF2", "TF3", "TF4", "TF5", "PT1", "PT2", "PT3", "PT4", "PT5"});

  const Json result = Json::parse(read_text(dir.file("run/RESULT.json")));
  CHECK(result.at("claims") == printed.at("claims"));
  const std::string page = read_text(dir.file("run/report.html"));
  CHECK_THAT(page, Contains("TF5: ") && Contains("<svg") && !Contains("<script") && !Contains("src="));
}
