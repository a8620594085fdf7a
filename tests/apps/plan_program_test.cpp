// Training steps as plans, from the command line: the same values as eager ones, and how they are shown.
#include <algorithm>

#include "../catch.hpp"
#include "train_workplace.h"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("train gives the same weights replayed, --eager and with --check-plan") {
  const TrainWorkplace place;
  REQUIRE(place.train({"--epochs", "1", "--out", "replayed"}).exit_code == 0);
  REQUIRE(place.train({"--epochs", "1", "--out", "eager", "--eager"}).exit_code == 0);
  REQUIRE(place.train({"--epochs", "1", "--out", "checked", "--check-plan", "3"}).exit_code == 0);
  CHECK(place.model("replayed") == place.model("eager"));
  CHECK(place.model("replayed") == place.model("checked"));
}

TEST_CASE("inspect --plan shows the step of a network or of a file, as text or JSON") {
  const TrainWorkplace place;
  REQUIRE(place.train({"--epochs", "1", "--out", "run"}).exit_code == 0);
  const Outcome file = tandem_program(place.dir, {"inspect", "run", "--plan"});
  CHECK(file.exit_code == 0);
  CHECK(file.out.find("BnAct x=") != std::string::npos);
  CHECK(file.out.find("w=dense1.weight[32, 784]") != std::string::npos);
  const Outcome network = tandem_program(place.dir, {"inspect", "w3", "--plan", "--bn", "off", "-b", "6", "--json"});
  CHECK(network.exit_code == 0);
  const auto plan = nlohmann::json::parse(network.out)["plan"];
  CHECK(std::count(plan.begin(), plan.end(), "3 times, 2 rows each:") > 1);
  CHECK(network.out.find("BnAct") == std::string::npos);
  const Outcome nothing = tandem_program(place.dir, {"inspect", "nothing", "--plan"});
  CHECK(nothing.exit_code != 0);
  CHECK(nothing.err.find("\"nothing\"") != std::string::npos);
}
