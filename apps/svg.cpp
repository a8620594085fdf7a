#include "svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace tandem {

namespace {

// User units; the pictures are drawn for 440 wide so that text stays readable on a narrow screen.
constexpr double plot_width = 440, plot_height = 300;

struct Range {
  double low = INFINITY, high = -INFINITY;
  void include(double v) {
    if (!std::isfinite(v)) return;
    low = std::min(low, v);
    high = std::max(high, v);
  }
  // Never empty: a single value gets room on both sides.
  void settle(double margin) {
    if (low > high) low = 0, high = 1;
    const double room = low == high ? std::max(std::abs(low) * 0.1, 1e-9) : (high - low) * margin;
    low -= room;
    high += room;
  }
};

// From values to user units, straight or by logarithm.
struct Axis {
  double low, high, from, to;
  bool log = false;
  double operator()(double v) const {
    const double share = log ? std::log(v / low) / std::log(high / low) : (v - low) / (high - low);
    return from + share * (to - from);
  }
};

std::string number(double v) {
  if (v != 0 && std::abs(v) < 1e-9) v = 0;
  std::string text = fmt::format("{:.6g}", v);
  return text == "-0" ? "0" : text;
}

// Ticks that lie inside, at 1, 2 and 5 times powers of ten.
std::vector<double> log_ticks(double low, double high) {
  std::vector<double> ticks;
  for (double decade = std::pow(10, std::floor(std::log10(low))); decade <= high; decade *= 10)
    for (double digit : {1.0, 2.0, 5.0})
      if (decade * digit >= low * 0.999 && decade * digit <= high * 1.001) ticks.push_back(decade * digit);
  return ticks;
}

std::string open_svg(const std::string& description, double height) {
  return fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\" "
      "font-family=\"system-ui, sans-serif\" font-size=\"12\" fill=\"#222222\">\n<title>{}</title>\n",
      plot_width, height, escape_markup(description), escape_markup(description));
}

std::string text_at(double x, double y, const std::string& anchor, const std::string& text,
                    const std::string& extra = "") {
  return fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor, extra,
                     escape_markup(text));
}

std::string segment(double x1, double y1, double x2, double y2, const std::string& colour, double width = 1,
                    const std::string& extra = "") {
  return fmt::format(
      "<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\" stroke-width=\"{}\"{}/>\n", x1, y1,
      x2, y2, colour, width, extra);
}

std::string draw_line(const Line& line, const Axis& x, const Axis& y) {
  std::string path;
  bool drawing = false;
  for (size_t i = 0; i < line.x.size(); ++i) {
    const bool finite = std::isfinite(line.y[i]);
    if (finite) path += fmt::format("{}{:.1f},{:.1f}", drawing ? "L" : "M", x(line.x[i]), y(line.y[i]));
    drawing = finite;
  }
  if (path.empty()) return "";
  return fmt::format(
      "<path d=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{}\" stroke-opacity=\"{}\" "
      "stroke-linejoin=\"round\" stroke-linecap=\"round\"{}/>\n",
      path, line.colour, line.width, line.opacity, line.dashed ? " stroke-dasharray=\"5 4\"" : "");
}

// Stretches where both edges are finite, as filled shapes.
std::string draw_band(const Band& band, const Axis& x, const Axis& y) {
  std::string out;
  for (size_t begin = 0; begin < band.x.size();) {
    size_t end = begin;
    while (end < band.x.size() && std::isfinite(band.low[end]) && std::isfinite(band.high[end])) ++end;
    std::string points;
    for (size_t i = begin; i < end; ++i) points += fmt::format("{:.1f},{:.1f} ", x(band.x[i]), y(band.high[i]));
    for (size_t i = end; i-- > begin;) points += fmt::format("{:.1f},{:.1f} ", x(band.x[i]), y(band.low[i]));
    if (end > begin)
      out += fmt::format("<polygon points=\"{}\" fill=\"{}\" fill-opacity=\"0.15\"/>\n", points, band.colour);
    begin = end + 1;
  }
  return out;
}

std::string draw_legend(const std::vector<Line>& lines, double left) {
  std::string out;
  double x = left;
  for (const Line& line : lines) {
    if (line.label.empty()) continue;
    out += segment(x, 12, x + 22, 12, line.colour, std::max(line.width, 2.0),
                   line.dashed ? " stroke-dasharray=\"5 4\"" : "");
    out += text_at(x + 28, 16, "start", line.label);
    x += 28 + 7.0 * double(line.label.size()) + 18;
  }
  return out;
}

std::string draw_axes(const LinePlot& plot, const Axis& x, const Axis& y) {
  std::string out;
  for (double tick : y.log ? log_ticks(y.low, y.high) : nice_ticks(y.low, y.high, 6)) {
    if (tick < y.low || tick > y.high) continue;
    out += segment(x.from, y(tick), x.to, y(tick), "#e3e3e3");
    out += text_at(x.from - 6, y(tick) + 4, "end", number(tick));
  }
  for (double guide : plot.guides)
    if (guide > y.low && guide < y.high)
      out += segment(x.from, y(guide), x.to, y(guide), "#8a8a8a", 1, " stroke-dasharray=\"2 3\"");
  const auto ticks = x.log ? log_ticks(x.low, x.high) : nice_ticks(x.low, x.high, 6);
  for (double tick : ticks) {
    if (tick < x.low || tick > x.high) continue;
    out += segment(x(tick), y.from, x(tick), y.from + 4, "#666666");
    out += text_at(x(tick), y.from + 17, "middle", number(tick));
  }
  out += segment(x.from, y.from, x.to, y.from, "#666666");
  out += text_at((x.from + x.to) / 2, y.from + 34, "middle", plot.x_label);
  const double middle = (y.from + y.to) / 2;
  out += text_at(13, middle, "middle", plot.y_label, fmt::format(" transform=\"rotate(-90 13 {:.1f})\"", middle));
  return out;
}

}  // namespace

std::string escape_markup(const std::string& text) {
  std::string out;
  for (char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::vector<double> nice_ticks(double low, double high, int count) {
  if (!(high > low)) return {low};
  const double rough = (high - low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  const double digit = rough / power;
  const double step = power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
  std::vector<double> ticks;
  const double first = std::floor(low / step), last = std::ceil(high / step);
  for (double i = first; i <= last; ++i) ticks.push_back(i * step);
  return ticks;
}

std::string to_svg(const LinePlot& plot) {
  Range xs, ys;
  for (const Line& line : plot.lines) {
    for (double v : line.x) xs.include(v);
    for (double v : line.y) ys.include(v);
  }
  for (const Band& band : plot.bands) {
    for (double v : band.low) ys.include(v);
    for (double v : band.high) ys.include(v);
  }
  const bool log_x = plot.log_x && xs.low > 0 && xs.high > xs.low;
  if (!log_x) xs.settle(0);
  const bool log_y = plot.log_y && ys.low > 0 && ys.high > 4 * ys.low;  // or there would be too few ticks
  if (!log_y) ys.settle(0.04);
  const Axis x{xs.low, xs.high, 58, plot_width - 14, log_x}, y{ys.low, ys.high, plot_height - 42, 30, log_y};
  std::string out = open_svg(plot.description, plot_height);
  out += draw_axes(plot, x, y);
  for (const Band& band : plot.bands) out += draw_band(band, x, y);
  for (const Line& line : plot.lines) out += draw_line(line, x, y);
  return out + draw_legend(plot.lines, x.from) + "</svg>\n";
}

std::string to_svg(const DotPlot& plot) {
  Range range;
  range.include(0);
  for (const auto& row : plot.rows) range.include(row.value);
  for (const auto& interval : plot.intervals)
    for (double v : {interval.low, interval.center, interval.high}) range.include(v);
  range.settle(0.08);
  // Room on both sides of zero, so that it is seen as a line and not as the frame.
  range.low = std::min(range.low, -0.15 * range.high);
  range.high = std::max(range.high, -0.15 * range.low);
  constexpr double row_height = 20, top = 28;
  const double bottom = top + row_height * double(plot.rows.size() + plot.intervals.size()) + 8;
  const Axis x{range.low, range.high, 96, plot_width - 14};

  std::string out = open_svg(plot.description, bottom + 42);
  out +=
      text_at(x.from, 14, "start", "\u2190 " + plot.left_note) + text_at(x.to, 14, "end", plot.right_note + " \u2192");
  for (double tick : nice_ticks(x.low, x.high, 5)) {
    if (tick < x.low || tick > x.high) continue;
    out += segment(x(tick), top - 6, x(tick), bottom, "#e3e3e3");
    out += text_at(x(tick), bottom + 16, "middle", number(tick));
  }
  out += segment(x(0), top - 10, x(0), bottom, "#222222", 1.5);
  double y = top + row_height / 2;
  for (const auto& row : plot.rows) {
    out += text_at(x.from - 10, y + 4, "end", row.label);
    if (std::isfinite(row.value))
      out +=
          fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4.5\" fill=\"{}\"/>\n", x(row.value), y, colour_neutral);
    else
      out += text_at(x.from + 4, y + 4, "start", row.note,
                     " font-style=\"italic\" stroke=\"#ffffff\" stroke-width=\"4\" paint-order=\"stroke\"");
    y += row_height;
  }
  for (const auto& interval : plot.intervals) {
    out += text_at(x.from - 10, y + 4, "end", interval.label, " font-weight=\"bold\"");
    out += segment(x(interval.low), y, x(interval.high), y, "#222222", 3);
    for (double end : {interval.low, interval.high}) out += segment(x(end), y - 5, x(end), y + 5, "#222222", 2);
    out += fmt::format(
        "<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"9\" height=\"9\" fill=\"#222222\" "
        "transform=\"rotate(45 {:.1f} {:.1f})\"/>\n",
        x(interval.center) - 4.5, y - 4.5, x(interval.center), y);
    y += row_height;
  }
  return out + text_at((x.from + x.to) / 2, bottom + 34, "middle", plot.x_label) + "</svg>\n";
}

}  // namespace tandem
