// The files of a run that other programs read: JSON lines and CSV.
#include "metrics.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <sstream>

#include "../catch.hpp"
#include "program.h"

using namespace tandem;
using namespace tandem::test;

namespace {
std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) lines.push_back(line);
  return lines;
}
}  // namespace

TEST_CASE("A metric is one JSON object and one CSV row") {
  const Metric m{40, 0.1, "train", 0.30000000000000004, 0.5, 1e-5, 1.23456};
  CHECK(json_line(m) ==
        R"({"step":40,"epoch":0.1,"split":"train","loss":0.30000000000000004,"accuracy":0.5,"lr":1e-05,"time":1.235})"
        "\n");
  CHECK(csv_line(m) == "40,0.1,train,0.30000000000000004,0.5,1e-05,1.235\n");
  CHECK(std::string(kCsvHeader) == "step,epoch,split,loss,accuracy,lr,time\n");
  CHECK(nlohmann::json::parse(json_line(m)).at("loss").get<double>() == m.loss);
}

TEST_CASE("A loss that is no number is null in JSON and nothing in CSV") {
  const Metric m{40, 0.1, "train", -std::nan(""), 0.5, 0.5, 1};
  CHECK(nlohmann::json::parse(json_line(m)).at("loss").is_null());
  CHECK(csv_line(m) == "40,0.1,train,,0.5,0.5,1.000\n");
}

TEST_CASE("Training steps are averaged over log_every of them, and none is lost") {
  const TempDir dir;
  {
    MetricsLog log(dir.path(), 2);
    log.step({1, 0.25, 4.0, 0.5, 0.1});
    log.step({2, 0.5, 2.0, 1.0, 0.2});
    log.step({3, 0.75, 7.0, 0.0, 0.3});
    Evaluation e;
    e.loss = 1.5;
    e.accuracy = 0.75;
    log.validation({3, 0.75, 0.3, e});
    log.step({4, 1.0, 9.0, 1.0, 0.4});
    log.flush();
    log.flush();  // nothing is left to write
  }
  const auto lines = lines_of(read_text(dir.file("metrics.jsonl")));
  REQUIRE(lines.size() == 4);
  const auto check = [&](size_t i, int64_t step, const std::string& split, double loss, double accuracy, double lr) {
    const auto json = nlohmann::json::parse(lines[i]);
    CHECK(json.at("step") == step);
    CHECK(json.at("split") == split);
    CHECK(json.at("loss") == loss);
    CHECK(json.at("accuracy") == accuracy);
    CHECK(json.at("lr") == lr);
  };
  check(0, 2, "train", 3.0, 0.75, 0.2);
  check(1, 3, "train", 7.0, 0.0, 0.3);
  check(2, 3, "validation", 1.5, 0.75, 0.3);
  check(3, 4, "train", 9.0, 1.0, 0.4);
  CHECK(lines_of(read_text(dir.file("metrics.csv"))).size() == 5);
}

TEST_CASE("A log that cannot be opened or written says why") {
  CHECK(error_of([] { AppendFile("/no/such/folder/x"); }) ==
        "cannot write /no/such/folder/x: No such file or directory");
  AppendFile full("/dev/full");
  CHECK(error_of([&] { full.append("x"); }) == "cannot write /dev/full: No space left on device");
}
