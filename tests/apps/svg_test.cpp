// The pictures: well formed, self-contained, inside their frame, and true to the numbers.
#include "svg.h"

#include <algorithm>
#include <cmath>
#include <regex>

#include "../catch.hpp"

using namespace tandem;

namespace {

// The names of tags in order; fails unless every opened one is closed in turn.
std::vector<std::string> tags_of(const std::string& xml) {
  std::vector<std::string> open, seen;
  const std::regex tag("<(/?)([a-z]+)((?: [a-zA-Z0-9-]+=\"[^\"<]*\")*)(/?)>");
  size_t at = 0;
  for (auto it = std::sregex_iterator(xml.begin(), xml.end(), tag); it != std::sregex_iterator(); ++it) {
    const std::string between = xml.substr(at, it->position() - at);
    CHECK(between.find_first_of("<>") == std::string::npos);
    at = it->position() + it->length();
    const std::string name = (*it)[2];
    if ((*it)[1].length()) {
      REQUIRE_FALSE(open.empty());
      CHECK(open.back() == name);
      open.pop_back();
    } else {
      seen.push_back(name);
      if (!(*it)[4].length()) open.push_back(name);
    }
  }
  CHECK(open.empty());
  return seen;
}

std::vector<double> attribute(const std::string& xml, const std::string& name) {
  std::vector<double> values;
  const std::regex pattern(" " + name + "=\"(-?[0-9.]+)\"");
  for (auto it = std::sregex_iterator(xml.begin(), xml.end(), pattern); it != std::sregex_iterator(); ++it)
    values.push_back(std::stod((*it)[1]));
  return values;
}

void check_self_contained(const std::string& svg) {
  CHECK(svg.find("NaN") == std::string::npos);
  CHECK(svg.find("nan") == std::string::npos);
  CHECK(svg.find("inf") == std::string::npos);
  for (const char* outside : {"href", "<script", "<image", "url(", "@import"})
    CHECK(svg.find(outside) == std::string::npos);
  for (const char* name : {"x", "x1", "x2", "cx"})
    for (double v : attribute(svg, name)) CHECK((v >= 0 && v <= 440));
}

LinePlot two_lines() {
  LinePlot plot;
  plot.description = "a & b";
  plot.x_label = "steps";
  plot.y_label = "accuracy <%>";
  plot.log_x = true;
  plot.lines = {{"plain", colour_first, {100, 200, 1000}, {90, 95, 97}},
                {"bn", colour_second, {100, 200, 1000}, {93, 96, 98}}};
  plot.bands = {{colour_first, {100, 200, 1000}, {89, 94, 96}, {91, 96, 98}}};
  return plot;
}

}  // namespace

TEST_CASE("A line plot is well-formed SVG that needs nothing from outside") {
  const std::string svg = to_svg(two_lines());
  const auto tags = tags_of(svg);
  CHECK(std::count(tags.begin(), tags.end(), "path") == 2);
  CHECK(std::count(tags.begin(), tags.end(), "polygon") == 1);
  CHECK(svg.find("aria-label=\"a &amp; b\"") != std::string::npos);
  CHECK(svg.find("accuracy &lt;%&gt;") != std::string::npos);
  check_self_contained(svg);
  CHECK(svg == to_svg(two_lines()));
}

TEST_CASE("A logarithmic axis puts equal ratios at equal distances") {
  LinePlot plot = two_lines();
  plot.lines = {{"", colour_first, {1, 10, 100}, {0, 1, 2}}};
  plot.bands.clear();
  const std::string svg = to_svg(plot);
  std::smatch m;
  REQUIRE(std::regex_search(svg, m, std::regex("M([0-9.]+),([0-9.]+)L([0-9.]+),([0-9.]+)L([0-9.]+),([0-9.]+)")));
  const double x0 = std::stod(m[1]), x1 = std::stod(m[3]), x2 = std::stod(m[5]);
  CHECK(x1 - x0 == Approx(x2 - x1).margin(0.11));
  CHECK(std::stod(m[2]) > std::stod(m[4]));  // larger values are higher up
  CHECK(std::stod(m[4]) - std::stod(m[6]) == Approx(std::stod(m[2]) - std::stod(m[4])).margin(0.11));
}

TEST_CASE("A value that is not finite interrupts the line and the band") {
  LinePlot plot = two_lines();
  plot.lines = {{"", colour_first, {1, 2, 3, 4, 5}, {1, 2, NAN, 4, 5}}};
  plot.bands = {{colour_first, {1, 2, 3, 4, 5}, {0, 1, -INFINITY, 3, 4}, {2, 3, 4, 5, 6}}};
  const std::string svg = to_svg(plot);
  check_self_contained(svg);
  std::smatch m;
  REQUIRE(std::regex_search(svg, m, std::regex("<path d=\"([^\"]*)\"")));
  const std::string path = m[1];
  CHECK(std::count(path.begin(), path.end(), 'M') == 2);
  const auto tags = tags_of(svg);
  CHECK(std::count(tags.begin(), tags.end(), "polygon") == 2);
}

TEST_CASE("Empty and single-valued plots are still plots") {
  for (LinePlot plot : {LinePlot{}, LinePlot{"one", "x", "y", true, true, {}, {{"", colour_first, {5}, {3}}}, {}}}) {
    const std::string svg = to_svg(plot);
    tags_of(svg);
    check_self_contained(svg);
  }
  const std::string svg = to_svg(DotPlot{});
  tags_of(svg);
  check_self_contained(svg);
}

TEST_CASE("A dot plot shows zero, a dot per value and a note where there is none") {
  DotPlot plot;
  plot.description = "differences";
  plot.rows = {{"seed 1", -300, ""}, {"seed 2", -100, ""}, {"seed 3", NAN, "never <got> there"}};
  plot.intervals = {{"mean", -200, -350, -50}};
  const std::string svg = to_svg(plot);
  const auto tags = tags_of(svg);
  check_self_contained(svg);
  CHECK(std::count(tags.begin(), tags.end(), "circle") == 2);
  CHECK(svg.find("never &lt;got&gt; there") != std::string::npos);
  const auto dots = attribute(svg, "cx");
  REQUIRE(dots.size() == 2);
  CHECK(dots[0] < dots[1]);
  std::smatch zero;
  REQUIRE(
      std::regex_search(svg, zero, std::regex("<line x1=\"([0-9.]+)\"[^>]*stroke=\"#222222\" stroke-width=\"1.5\"")));
  const double x0 = std::stod(zero[1]);
  CHECK(x0 > dots[1]);
  CHECK((x0 - dots[0]) / (x0 - dots[1]) == Approx(3).epsilon(0.01));
}

TEST_CASE("Ticks are round numbers that cover the range") {
  CHECK(nice_ticks(0, 1, 5) == std::vector<double>{0, 0.2, 0.4, 0.6000000000000001, 0.8, 1});
  CHECK(nice_ticks(3, 97, 5) == std::vector<double>{0, 20, 40, 60, 80, 100});
  CHECK(nice_ticks(5, 5, 4) == std::vector<double>{5});
}

TEST_CASE("Markup in text is escaped") {
  CHECK(escape_markup("<a href='x'>\"&") == "&lt;a href=&#39;x&#39;&gt;&quot;&amp;");
}
