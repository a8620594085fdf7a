// Findings, cells, tables and the page, from comparisons made up so that the right answer is known.
#include "report.h"

#include <cmath>
#include <regex>
#include <sstream>

#include "../catch.hpp"
#include "findings.h"
#include "svg.h"
#include "table.h"

using namespace tandem;
using Catch::Matchers::Contains;

namespace {

// A run that reaches 97 % at `reaches` (0: it stays at 96 %) and tests at `test`; diverged if `test` is 0.
ArmRun make_run(int64_t reaches, double test) {
  ArmRun run;
  run.weights_hash = std::string(64, 'a');
  run.order_hash = std::string(64, 'b');
  for (int64_t step = 100; step <= 500; step += 100) {
    const double accuracy = reaches && step >= reaches ? 0.975 : 0.96;
    run.curve.push_back({step, 0.01 * double(step), 10.0 / double(step), 0.1, accuracy});
  }
  run.steps = 500;
  run.seconds = 5;
  run.diverged = test == 0;
  if (!run.diverged) run.train_accuracy = run.validation_accuracy = run.test_accuracy = test;
  return run;
}

struct SeedNumbers {
  int64_t plain_reaches, bn_reaches;
  double plain_test, bn_test;
};

Comparison make_comparison(const std::vector<SeedNumbers>& seeds) {
  Comparison c;
  c.arms[0] = {"plain", "plain", {}, 1000};
  c.arms[1] = {"bn", "batch norm", {}, 1010};
  c.dataset = "mnist";
  c.validation_count = 5000;
  c.test_count = 10000;
  c.total_steps = 500;
  c.eval_every = 100;
  c.aa_steps = 10;
  c.aa_difference = 0;
  c.parallel_arms = true;
  for (size_t i = 0; i < seeds.size(); ++i) {
    const auto& s = seeds[i];
    c.pairs.push_back({i + 1, {make_run(s.plain_reaches, s.plain_test), make_run(s.bn_reaches, s.bn_test)}});
  }
  return c;
}

const Quantity& find(const std::vector<Quantity>& all, const std::string& key) {
  for (const Quantity& q : all)
    if (q.key == key) return q;
  throw std::runtime_error(key);
}

std::string joined(const std::vector<std::string>& sentences) {
  std::string text;
  for (const auto& s : sentences) text += s + "\n";
  return text;
}

}  // namespace

TEST_CASE("Cells show the mean and its spread, and say how many runs they are of") {
  const auto all =
      quantities(make_comparison({{400, 200, 0.97, 0.98}, {300, 200, 0.971, 0.979}, {500, 100, 0.972, 0.981}}));
  const Quantity& steps = find(all, "steps_to_97");
  CHECK(arm_cell(steps, 0) == "400 +- 100");
  CHECK(arm_cell(steps, 1) == "167 +- 58");
  CHECK(difference_cell(steps) == "-233 [-613, +146]");
  const Quantity& test = find(all, "test_accuracy");
  CHECK(arm_cell(test, 0) == "97.10 +- 0.10");
  CHECK(difference_cell(test) == "+0.90 [+0.65, +1.15]");
  CHECK(*find(all, "test_accuracy").first_summary.mean == Approx(0.971));
}

TEST_CASE("Cells claim no spread that is finer than the distance of the measurements") {
  const auto all =
      quantities(make_comparison({{300, 100, 0.97, 0.98}, {400, 100, 0.97, 0.98}, {300, 100, 0.97, 0.98}}));
  const Quantity& steps = find(all, "steps_to_97");
  CHECK(arm_cell(steps, 0) == "333 +- 58");
  CHECK(arm_cell(steps, 1) == "<= 100");
  CHECK(difference_cell(steps) == "-233 (+-100)");
  CHECK(arm_cell(find(all, "seconds_to_90"), 1) == "<= 1.00");
  CHECK(difference_cell(find(all, "steps_to_90")) == "0 (+-100)");
}

TEST_CASE("Cells of runs that never got there give medians and counts instead of means") {
  const auto all = quantities(make_comparison({{0, 200, 0.97, 0.98}, {300, 200, 0.97, 0.98}, {500, 100, 0.97, 0.98}}));
  const Quantity& steps = find(all, "steps_to_97");
  CHECK(arm_cell(steps, 0) == "med 500 (2 of 3)");
  CHECK(difference_cell(steps) == "lower in 3 of 3");
  const auto never = quantities(make_comparison({{0, 200, 0.97, 0.98}, {0, 200, 0.97, 0.98}, {0, 0, 0.97, 0.98}}));
  const Quantity& q = find(never, "steps_to_97");
  CHECK(arm_cell(q, 0) == "never: 0 of 3");
  CHECK(arm_cell(q, 1) == "med 200 (2 of 3)");
  CHECK(difference_cell(q) == "lower in 2 of 3");
}

TEST_CASE("Findings claim what the intervals support and no more") {
  SECTION("fewer steps, better accuracy") {
    const std::string text = joined(findings(make_comparison({{500, 100, 0.97, 0.98},
                                                              {300, 200, 0.971, 0.979},
                                                              {400, 100, 0.972, 0.981},
                                                              {400, 100, 0.97, 0.98},
                                                              {400, 200, 0.97, 0.98}})));
    CHECK_THAT(text, Contains("reached 97 % validation accuracy in fewer steps in 5 of 5 seeds"));
    CHECK_THAT(text, Contains("-260 steps, 95 % interval [-402, -118], which excludes 0"));
    CHECK_THAT(text, Contains("With batch norm, test accuracy was higher in 5 of 5 seeds. The mean"));
    CHECK_THAT(text, !Contains("includes 0"));
  }
  SECTION("no difference in accuracy") {
    const std::string text = joined(findings(make_comparison({{400, 100, 0.97, 0.98},
                                                              {300, 400, 0.98, 0.97},
                                                              {400, 400, 0.972, 0.971},
                                                              {500, 200, 0.97, 0.975},
                                                              {400, 100, 0.97, 0.97}})));
    CHECK_THAT(text, Contains("fewer steps in 3 of 5 seeds, the same in 1, more in 1"));
    CHECK_THAT(text, Contains("includes 0: these seeds do not show a difference"));
  }
  SECTION("batch norm is worse") {
    const std::string text = joined(findings(make_comparison({{100, 400, 0.98, 0.97},
                                                              {100, 400, 0.98, 0.97},
                                                              {100, 300, 0.981, 0.97},
                                                              {100, 400, 0.98, 0.97},
                                                              {100, 400, 0.98, 0.97}})));
    CHECK_THAT(text, Contains("fewer steps in 0 of 5 seeds, more in 5"));
    CHECK_THAT(text, Contains("higher in 0 of 5 seeds, lower in 5"));
  }
  SECTION("nothing that only the distance of the measurements made so exact") {
    const std::string text =
        joined(findings(make_comparison({{300, 100, 0.97, 0.98}, {300, 100, 0.98, 0.99}, {300, 100, 0.98, 0.99}})));
    CHECK_THAT(text, Contains("The mean difference is -200 steps, known to within 100 steps and so too coarsely for an "
                              "interval.\nBy the clock it got there sooner in 3 of 3 seeds. The mean difference is "
                              "-2.00 s, known to within 1.00 s and so"));
    CHECK_THAT(text, Contains("The difference is +1.00 percentage points in every seed."));
  }
  SECTION("a diverged run reached nothing, and two that reached nothing are not the same") {
    const std::string text =
        joined(findings(make_comparison({{300, 100, 0, 0.98}, {300, 100, 0, 0}, {300, 100, 0.97, 0.98}})));
    CHECK_THAT(text, Contains("fewer steps in 2 of 3 seeds, neither has a value in 1. No mean difference"));
    CHECK_THAT(text, Contains("higher in 2 of 3 seeds, neither has a value in 1."));
    CHECK_THAT(text, !Contains("the same"));
  }
  SECTION("one seed supports nothing") {
    const auto sentences = findings(make_comparison({{400, 100, 0.97, 0.98}}));
    REQUIRE(sentences.size() == 1);
    CHECK_THAT(sentences[0], Contains("support no claim"));
  }
  SECTION("a diverged arm is a result") {
    const std::string text =
        joined(findings(make_comparison({{0, 100, 0, 0.98}, {300, 100, 0.97, 0.98}, {300, 100, 0.97, 0.98}})));
    CHECK_THAT(text, Contains("Plain diverged in 1 of 3 seeds"));
    CHECK_THAT(text, Contains("higher in 3 of 3 seeds"));
    CHECK_THAT(text, Contains("1 of 6 runs have no value"));
    CHECK_THAT(text, Contains("3 seeds are few"));
  }
  SECTION("nothing finished") {
    CHECK(findings(make_comparison({})) ==
          std::vector<std::string>{"No seed finished, so there is nothing to report."});
  }
  SECTION("A/A") {
    Comparison c = make_comparison({{400, 400, 0.97, 0.97}, {300, 300, 0.97, 0.97}});
    c.settings.preset = "null";
    CHECK_THAT(findings(c)[0], Contains("difference exactly 0"));
    c.aa_difference = 1e-7;
    CHECK_THAT(findings(c)[0], Contains("differed by up to 1e-07") && !Contains("exactly 0"));
  }
}

TEST_CASE("Tables stay within their width and lose nothing") {
  const Table table{
      {"", "plain", "batch norm", "difference"},
      {{"seconds to 97 %", "12345.67 +- 12345.67", "12345.67 +- 12345.67", "-12345.67 [-12345.67, -12345.67]"}, {}}};
  std::istringstream lines(table.to_string(60));
  std::string all;
  for (std::string line; std::getline(lines, line);) {
    CHECK(line.size() <= 60);
    CHECK((line.empty() || line.back() != ' '));
    all += line + " ";
  }
  for (const char* word : {"seconds", "97", "12345.67", "[-12345.67,", "-12345.67]"}) CHECK_THAT(all, Contains(word));
  CHECK(Table{{"a", "bb"}, {{"ccc", "1"}}}.to_string() == "a    bb\n---  --\nccc   1\n");
  CHECK(wrap("one two three", 8) == "one two\nthree\n");
}

TEST_CASE("The page needs nothing from outside and shows every number with its spread") {
  const Comparison c = make_comparison({{400, 100, 0.97, 0.98}, {0, 100, 0, 0.979}, {400, 200, 0.972, 0.981}});
  const std::string html = report_html(c, {{"lr", "0.1"}, {"layers", "<b>"}}, {{"cpu", "a & b"}});
  CHECK(html.find("<script") == std::string::npos);
  CHECK(html.find("<link") == std::string::npos);
  CHECK(html.find("src=") == std::string::npos);
  CHECK(html.find("href=") == std::string::npos);
  CHECK(html.find("url(") == std::string::npos);
  const std::regex address("https?://[^\"]*");
  for (auto it = std::sregex_iterator(html.begin(), html.end(), address); it != std::sregex_iterator(); ++it)
    CHECK(it->str() == "http://www.w3.org/2000/svg");
  CHECK_THAT(html, Contains("<meta name=\"viewport\""));
  CHECK_THAT(html, Contains("&lt;b&gt;") && Contains("a &amp; b") && Contains("diverged"));
  CHECK_THAT(html, Contains(std::string(64, 'a')) && Contains(std::string(64, 'b')));
  CHECK_THAT(html, Contains("98.00 <small>&plusmn; 0.10</small>"));
  CHECK_THAT(html, Contains(colour_first) && Contains(colour_second));
  CHECK_THAT(html, Contains("What it does not show"));
  for (const char* tag : {"table", "svg", "tr", "td", "figure", "ul", "main", "h2"}) {
    const std::regex open(std::string("<") + tag + "[ >]"), close(std::string("</") + tag + ">");
    CHECK(std::distance(std::sregex_iterator(html.begin(), html.end(), open), std::sregex_iterator()) ==
          std::distance(std::sregex_iterator(html.begin(), html.end(), close), std::sregex_iterator()));
  }
}
