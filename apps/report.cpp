#include "report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "findings.h"
#include "svg.h"
#include "tandem/core/text.h"
#include "tandem/core/version.h"

namespace tandem {

namespace {

const char* const colours[] = {colour_first, colour_second};

constexpr const char* style = R"(
:root { color-scheme: light; }
body { margin: 0; background: #ffffff; color: #222222; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 8px 16px 48px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 16px 0 4px; }
h2 { font-size: 1.15rem; margin: 36px 0 8px; border-bottom: 1px solid #d5d5d5; padding-bottom: 4px; }
p, li { max-width: 46rem; }
ul { padding-left: 1.2rem; margin: 8px 0; }
.subtitle { color: #555555; margin: 0 0 12px; }
.findings { background: #f4f6f8; border-left: 4px solid #444444; padding: 8px 16px; max-width: 50rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.92rem; }
th, td { text-align: right; padding: 4px 14px 4px 0; border-bottom: 1px solid #e6e6e6; vertical-align: top; }
th:first-child, td:first-child, .facts td, .facts th, .seeds td:nth-child(2), .seeds th:nth-child(2) { text-align: left; }
.facts td { overflow-wrap: anywhere; }
.facts td:first-child, .arm { white-space: nowrap; }
.facts td:first-child { color: #555555; }
small { color: #555555; white-space: nowrap; }
code { font-size: 0.85em; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 460px), 1fr)); gap: 24px 32px; }
figure { margin: 0; }
figcaption { font-size: 0.92rem; margin-bottom: 4px; }
svg { width: 100%; height: auto; display: block; }
.key { display: inline-block; width: 0.7em; height: 0.7em; margin-right: 0.35em; border-radius: 2px; }
@media (max-width: 560px) { body { font-size: 15px; } th, td { padding-right: 8px; font-size: 0.85rem; } .headline small { display: block; } }
@media print { main { max-width: none; } figure, table { break-inside: avoid; } }
)";

// ---- text ------------------------------------------------------------------------------------------------------

std::string replace_all(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}
// A minus sign for every hyphen that starts a number.
std::string with_minus_signs(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool starts = i == 0 || text[i - 1] == ' ' || text[i - 1] == '[';
    const bool number = i + 1 < text.size() && text[i + 1] >= '0' && text[i + 1] <= '9';
    out += text[i] == '-' && starts && number ? "&minus;" : std::string(1, text[i]);
  }
  return out;
}

// A cell of the headline table, its spread or interval in small print.
std::string cell_html(const std::string& cell) {
  std::string text = with_minus_signs(replace_all(cell, "<=", "&le;"));
  const size_t spread = std::min({text.find(" +- "), text.find(" ["), text.find(" (")});
  if (spread != std::string::npos) text = text.substr(0, spread) + " <small>" + text.substr(spread + 1) + "</small>";
  return replace_all(text, "+-", "&plusmn;");
}

// A label that does not break before its percent sign.
std::string label_html(const Quantity& quantity) { return replace_all(escape_markup(quantity.label), " %", "&nbsp;%"); }

std::string row_html(const std::vector<std::string>& cells, const char* tag = "td") {
  std::string out = "<tr>";
  for (const auto& cell : cells) out += fmt::format("<{}>{}</{}>", tag, cell, tag);
  return out + "</tr>\n";
}

std::string list_html(const std::vector<std::string>& sentences) {
  std::string out = "<ul>\n";
  for (const auto& sentence : sentences)
    out += "<li>" + replace_all(escape_markup(sentence), "+-", "&plusmn;") + "</li>\n";
  return out + "</ul>\n";
}

std::string facts_html(const Facts& facts) {
  std::string out = "<table class=\"facts\">\n";
  for (const auto& [name, value] : facts) out += row_html({escape_markup(name), escape_markup(value)});
  return out + "</table>\n";
}

std::string arm_heading(const Comparison& comparison, int arm) {
  return fmt::format("<span class=\"arm\"><span class=\"key\" style=\"background:{}\"></span>{}</span>", colours[arm],
                     escape_markup(comparison.arms[arm].label));
}

// ---- tables ------------------------------------------------------------------------------------------------------

std::string headline_table(const Comparison& comparison) {
  std::string out = "<table class=\"headline\">\n<thead>" +
                    row_html({"", arm_heading(comparison, 0), arm_heading(comparison, 1), "difference"}, "th") +
                    "</thead>\n<tbody>\n";
  for (const Quantity& q : quantities(comparison))
    out +=
        row_html({label_html(q), cell_html(arm_cell(q, 0)), cell_html(arm_cell(q, 1)), cell_html(difference_cell(q))});
  return out + "</tbody></table>\n";
}

std::string seed_table(const Comparison& comparison) {
  const auto all = quantities(comparison);
  std::vector<std::string> header = {"seed", "arm"};
  for (const Quantity& q : all) header.push_back(label_html(q));
  std::string out =
      "<div class=\"wide\"><table class=\"seeds\">\n<thead>" + row_html(header, "th") + "</thead>\n<tbody>\n";
  for (size_t i = 0; i < comparison.pairs.size(); ++i) {
    for (int arm = 0; arm < 2; ++arm) {
      std::vector<std::string> cells = {fmt::format("{}", comparison.pairs[i].seed), arm_heading(comparison, arm)};
      const bool diverged = comparison.pairs[i].runs[arm].diverged;
      for (const Quantity& q : all) {
        const auto& value = (arm == 0 ? q.first : q.second)[i];
        cells.push_back(value ? shown(q, *value) : diverged ? "diverged" : "never");
      }
      out += row_html(cells);
    }
  }
  return out + "</tbody></table></div>\n";
}

std::string proof_table(const Comparison& comparison) {
  std::string out = "<div class=\"wide\"><table class=\"facts\">\n<thead>" +
                    row_html({"seed", "arm", "shared initial weights", "order of batches"}, "th") +
                    "</thead>\n<tbody>\n";
  for (const SeedPair& pair : comparison.pairs)
    for (int arm = 0; arm < 2; ++arm)
      out += row_html({fmt::format("{}", pair.seed), arm_heading(comparison, arm),
                       "<code>" + pair.runs[arm].weights_hash + "</code>",
                       "<code>" + pair.runs[arm].order_hash + "</code>"});
  return out + "</tbody></table></div>\n";
}

// ---- pictures -----------------------------------------------------------------------------------------------------

// Per arm: a thin line per seed, their range as a band, their median as a thick line. A run that ended early
// (diverged) counts as `missing`, worse than all others, from there on.
LinePlot curves(const Comparison& comparison, const std::function<double(const CurvePoint&)>& value, double missing) {
  LinePlot plot;
  plot.x_label = "training steps (logarithmic)";
  plot.log_x = true;
  std::vector<Line> medians;
  for (int arm = 0; arm < 2; ++arm) {
    std::map<double, std::vector<double>> by_step;
    for (const SeedPair& pair : comparison.pairs) {
      Line line{"", colours[arm], {}, {}, 1, 0.35};
      for (const CurvePoint& point : pair.runs[arm].curve) {
        line.x.push_back(double(point.step));
        line.y.push_back(value(point));
        by_step[double(point.step)].push_back(value(point));
      }
      plot.lines.push_back(std::move(line));
    }
    Line middle{comparison.arms[arm].label, colours[arm], {}, {}, 2.5, 1, arm == 1};
    Band band{colours[arm], {}, {}, {}};
    for (auto& [step, values] : by_step) {
      values.resize(comparison.pairs.size(), missing);
      middle.x.push_back(step);
      middle.y.push_back(median(values));
      band.x.push_back(step);
      band.low.push_back(percentile(values, 0));
      band.high.push_back(percentile(values, 1));
    }
    plot.bands.push_back(std::move(band));
    medians.push_back(std::move(middle));
  }
  for (auto& line : medians) plot.lines.push_back(std::move(line));
  return plot;
}

std::string figure(const std::string& caption, const std::string& svg) {
  return "<figure>\n<figcaption>" + escape_markup(caption) + "</figcaption>\n" + svg + "</figure>\n";
}

std::string accuracy_figure(const Comparison& comparison) {
  LinePlot plot = curves(
      comparison, [](const CurvePoint& p) { return 100 * p.validation_accuracy; }, -INFINITY);
  plot.y_label = "validation accuracy, %";
  plot.description = "Validation accuracy against training steps, one thin line per seed, the median thick";
  for (double target : compare_targets) plot.guides.push_back(100 * target);
  return figure(
      "Validation accuracy. Thin: a seed each; thick: their median; shaded: their range; dotted: the targets.",
      to_svg(plot));
}

std::string loss_figure(const Comparison& comparison) {
  LinePlot plot = curves(
      comparison, [](const CurvePoint& p) { return p.train_loss; }, INFINITY);
  plot.y_label = "training loss, nats";
  plot.description = "Training loss against training steps, one thin line per seed, the median thick";
  return figure("Training loss: the mean over the steps since the last evaluation.", to_svg(plot));
}

std::string difference_figure(const Comparison& comparison, const Quantity& q, const std::string& what,
                              const std::string& unit) {
  DotPlot plot;
  const std::string& second = comparison.arms[1].label;
  plot.x_label = fmt::format("{} minus {}, {}", second, comparison.arms[0].label, unit);
  plot.description = fmt::format("{}: {}, a dot per seed", what, plot.x_label);
  const bool lower = q.better == Better::lower;
  plot.left_note = fmt::format("{} {}", second, lower ? "better" : "worse");
  plot.right_note = fmt::format("{} {}", second, lower ? "worse" : "better");
  for (size_t i = 0; i < q.paired.differences.size(); ++i) {
    const std::string note = q.first[i]    ? second + " has no value"
                             : q.second[i] ? "plain has no value"
                                           : "neither has a value";
    const double difference = q.scale * q.paired.differences[i].value_or(NAN);
    plot.rows.push_back({fmt::format("seed {}", comparison.pairs[i].seed), difference, note});
  }
  if (q.paired.low)
    plot.intervals.push_back(
        {"mean, 95 %", q.scale * *q.paired.mean, q.scale * *q.paired.low, q.scale * *q.paired.high});
  return figure(
      fmt::format("Difference in {} per seed{}.", what, q.paired.low ? ", their mean and its 95 % interval" : ""),
      to_svg(plot));
}

std::string figures_html(const Comparison& comparison) {
  std::string out = "<div class=\"figures\">\n" + accuracy_figure(comparison) + loss_figure(comparison);
  for (const Quantity& q : quantities(comparison)) {
    if (q.key == "steps_to_97") out += difference_figure(comparison, q, "steps to 97 % validation accuracy", "steps");
    if (q.key == "test_accuracy") out += difference_figure(comparison, q, "test accuracy", "percentage points");
  }
  return out + "</div>\n";
}

std::string subtitle(const Comparison& comparison) {
  return fmt::format("{}, {} seed{}, {} steps each; parameters: {} {}, {} {}.{}", comparison.dataset,
                     comparison.pairs.size(), comparison.pairs.size() == 1 ? "" : "s",
                     group_digits(comparison.total_steps), comparison.arms[0].label,
                     group_digits(comparison.arms[0].parameters), comparison.arms[1].label,
                     group_digits(comparison.arms[1].parameters),
                     comparison.interrupted ? " Interrupted: the seeds that finished." : "");
}

}  // namespace

std::string report_html(const Comparison& comparison, const Facts& settings, const Facts& environment) {
  const TrainSettings& training = comparison.settings.training;
  const std::string title =
      fmt::format("{} on {}: {}", training.layers.empty() ? training.model : training.layers, comparison.dataset,
                  comparison.settings.is_null() ? "the plain network against itself" : "with and without batch norm");
  std::string out = fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{}</title>\n<style>{}</style>\n"
      "</head>\n<body>\n<main>\n<h1>{}</h1>\n<p class=\"subtitle\">{}</p>\n",
      escape_markup(title), style, escape_markup(title), escape_markup(subtitle(comparison)));
  out += "<div class=\"findings\">\n" + list_html(findings(comparison)) + "</div>\n";
  if (!comparison.pairs.empty()) {
    out +=
        "<h2>Result</h2>\n<p>Mean &plusmn; standard deviation over seeds; difference: second minus first, paired "
        "by seed, with the 95&nbsp;% interval of its mean.</p>\n" +
        headline_table(comparison);
    out += "<h2>Curves and differences</h2>\n" + figures_html(comparison);
    out += "<h2>Every seed</h2>\n" + seed_table(comparison);
    out +=
        "<h2>Proof of pairing</h2>\n<p>SHA-256 of the initial values of every tensor that both networks have, and of "
        "the row numbers of the training batches in order. Within a seed the two rows must be equal, and were checked "
        "before training.</p>\n" +
        proof_table(comparison);
  }
  out += "<h2>How it was measured</h2>\n" + list_html(methods(comparison));
  out += "<h2>What it does not show</h2>\n" + list_html(limits(comparison));
  out += "<h2>Settings</h2>\n" + facts_html(settings) + "<h2>Environment</h2>\n" + facts_html(environment);
  return out + fmt::format("<p class=\"subtitle\">Written by tandem {} ({}).</p>\n</main>\n</body>\n</html>\n",
                           version(), commit());
}

}  // namespace tandem
