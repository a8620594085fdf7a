#include "report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "findings.h"
#include "html.h"
#include "svg.h"
#include "tandem/core/text.h"

namespace tandem {

namespace {

const char* const colours[] = {colour_first, colour_second};

// A cell of the headline table, its spread or interval in small print.
std::string cell_html(const std::string& cell) {
  std::string text = with_minus_signs(replace_all(cell, "<=", "&le;"));
  const size_t spread = std::min({text.find(" +- "), text.find(" ["), text.find(" (")});
  if (spread != std::string::npos) text = text.substr(0, spread) + " <small>" + text.substr(spread + 1) + "</small>";
  return replace_all(text, "+-", "&plusmn;");
}

// A label that does not break before its percent sign.
std::string label_html(const Quantity& quantity) { return replace_all(escape_markup(quantity.label), " %", "&nbsp;%"); }

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
  std::string out;
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
  return html_page(title, subtitle(comparison), out);
}

}  // namespace tandem
