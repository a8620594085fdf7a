// Pictures as SVG text: a line plot with bands, a dot plot. Each is one <svg> element that scales with its
// container, uses no script, no style sheet and nothing from outside, and says in words what it shows.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tandem {

// Okabe and Ito's colour-blind safe palette: the same colour for the same arm in every picture.
inline const char* const colour_first = "#0072B2";   // blue
inline const char* const colour_second = "#D55E00";  // vermilion
inline const char* const colour_neutral = "#444444";

// "<" as "&lt;" and so on, for text and attributes of SVG and HTML.
std::string escape_markup(const std::string& text);

struct Line {
  std::string label;  // in the legend; empty: none
  std::string colour;
  std::vector<double> x, y;  // a non-finite y interrupts the line
  double width = 1, opacity = 1;
  bool dashed = false;
};
struct Band {
  std::string colour;
  std::vector<double> x, low, high;
};
struct LinePlot {
  std::string description;  // for readers who cannot see it
  std::string x_label, y_label;
  bool log_x = false, log_y = false;
  std::vector<Band> bands;
  std::vector<Line> lines;
  std::vector<double> guides;  // horizontal lines at these y, where they are in range
};
std::string to_svg(const LinePlot& plot);

// One dot per row, and an interval below them. x = 0 is always in range and marked.
struct DotPlot {
  struct Row {
    std::string label;
    double value;  // non-finite: `note` stands in the row instead of a dot
    std::string note;
  };
  std::string description;
  std::string x_label;
  std::string left_note, right_note;  // what left and right of zero mean
  std::vector<Row> rows;
  struct Interval {
    std::string label;
    double center, low, high;
  };
  std::vector<Interval> intervals;
};
std::string to_svg(const DotPlot& plot);

// Round values that cover [low, high], about `count` of them: 1, 2 or 5 times a power of ten apart.
std::vector<double> nice_ticks(double low, double high, int count);

}  // namespace tandem
