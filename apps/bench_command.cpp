// tandem bench: training steps of the reference networks, timed.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "bench.h"
#include "bench_growth.h"
#include "bench_kernels.h"
#include "commands.h"
#include "options.h"
#include "statistics.h"
#include "table.h"
#include "tandem/core/file.h"
#include "tandem/core/text.h"
#include "tandem/core/threads.h"
#include "tandem/core/version.h"
#include "terminal.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  BenchSettings bench;
  OutputOptions output;
  std::string precision = "fp32";
  int64_t reps = 1;
  bool kernels = false;
  std::string growth;  // empty: not
  int64_t largest = 4096;
  std::string svg;  // the folder for pictures of the growth; empty: none
};

// Figures taken under these would be of kernels that OpenBLAS would not have chosen.
void warn_about_environment() {
  for (const char* name : {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"})
    if (const char* value = std::getenv(name))
      warning(
          fmt::format("{}={} is set: OpenBLAS does not choose its kernels by itself; unset it for figures to publish",
                      name, value));
}

Json to_json(const Options& options, const BenchRow& row, const std::string& dataset, int64_t rep) {
  const TrainSettings& s = options.bench.training;
  Json json = {{"tool", "tandem"},
               {"version", version()},
               {"workload", s.model},
               {"bn", options.bench.bn},
               {"batch", row.batch},
               {"threads", threads()},
               {"device", s.device},
               {"precision", options.precision},
               {"eager", s.eager},
               {"ms_per_step", row.ms_per_step},
               {"p10", row.p10},
               {"p90", row.p90},
               {"samples_per_s", row.samples_per_s}};
  auto add_losses = [&](const BenchArm& arm, const std::string& suffix) {
    json["loss_first" + suffix] = arm.loss_first;
    json["loss_last" + suffix] = arm.loss_last;
  };
  const bool pair = row.on && row.off;
  if (row.on) add_losses(*row.on, pair ? "_on" : "");
  if (row.off) add_losses(*row.off, pair ? "_off" : "");
  if (pair) json["arms"] = row.in_parallel ? "at once" : "in turn";
  if (row.in_parallel) {
    json["ms_on"] = row.on->ms_per_step;
    json["ms_off"] = row.off->ms_per_step;
  }
  json["peak_rss_mb"] = row.peak_rss_mib;
  if (rep == 0) json["first_step_s"] = row.first_step_s;
  json["dataset"] = dataset;
  json["steps"] = row.steps;
  json["rep"] = rep;
  json["commit"] = commit();
  return json;
}

std::vector<std::string> text_cells(const Options& options, const BenchRow& row) {
  std::string losses;
  for (const auto& arm : {row.on, row.off})
    if (arm) losses += fmt::format("{}{:.2f} {:.2f}", losses.empty() ? "" : ", ", arm->loss_first, arm->loss_last);
  return {options.bench.training.model,
          options.bench.bn,
          fmt::format("{:.3f}", row.ms_per_step),
          fmt::format("{:.3f}", row.p10),
          fmt::format("{:.3f}", row.p90),
          fmt::format("{:.0f}", row.samples_per_s),
          losses,
          fmt::format("{:.0f}", row.peak_rss_mib)};
}

std::string footer(const Options& options, const BenchRow& row, const std::string& dataset) {
  const bool pair = row.on && row.off;
  return fmt::format("{} on {}, batch {}, {}, {} thread{}{}; ms/step is the median over the steps of {:g} s.",
                     options.bench.training.model, dataset, row.batch, options.precision, threads(),
                     threads() == 1 ? "" : "s",
                     !pair             ? ""
                     : row.in_parallel ? ", both arms at once (the slower one's step)"
                                       : ", the arms in turn (the step of both)",
                     options.bench.seconds);
}

Json to_json(const KernelRow& row, const KernelReport& report) {
  Json json = {{"tool", "tandem"},       {"version", version()},    {"kernel", row.kernel},
               {"shape", row.shape},     {"unit", row.unit},        {"rate", row.rate.median},
               {"low", row.rate.low},    {"high", row.rate.high},   {"peak_gflops", report.peak.median},
               {"cpu_path", cpu_path()}, {"rounds", report.rounds}, {"commit", commit()}};
  if (row.unit == "GF/s") {
    json["of_peak"] = row.of_peak.median;
    json["of_peak_low"] = row.of_peak.low;
    json["of_peak_high"] = row.of_peak.high;
  }
  return json;
}

int run_kernels(const Options& options) {
  const KernelReport report = bench_kernels(options.bench.seconds);
  Table table{{"kernel", "shape", "rate", "", "of peak", "lowest, highest"}, {}};
  for (const KernelRow& row : report.rows) {
    if (options.output.json) print_json(to_json(row, report));
    const bool share = row.unit == "GF/s";
    const Spread& s = share ? row.of_peak : row.rate;
    const int factor = share ? 100 : 1, digits = share ? 0 : row.unit == "us" ? 3 : 1;
    table.rows.push_back({row.kernel, row.shape, fmt::format("{:.{}f}", row.rate.median, row.unit == "us" ? 3 : 1),
                          row.unit, share ? fmt::format("{:.0f} %", 100 * s.median) : "",
                          fmt::format("{:.{}f} {:.{}f}", factor * s.low, digits, factor * s.high, digits)});
  }
  if (!options.output.json)
    print(
        table.to_string() + "\n" +
        wrap(fmt::format("One core, {} kernels, float32; medians of {} rounds. Peak {:.0f} GF/s, {:.0f} to {:.0f} over "
                         "the run; shares are of the peak measured around each kernel. y: forward; convolutions are "
                         "3 x 3 on 128 images, /2: of stride 2; two: on two images with packed weights, as a "
                         "compiled step runs them.",
                         cpu_path(), report.rounds, report.peak.median, report.peak.low, report.peak.high)));
  return kOk;
}

Json to_json(const GrowthSeries& series, const GrowthPoint& point) {
  const double ms = median(point.ms);
  Json json = {{"tool", "tandem"},        {"version", version()},
               {"series", series.name},   {"size", point.size},
               {"ms_per_step", ms},       {"rounds", point.ms},
               {"threads", threads()},    {"per_unit", ms * series.scale / point.units},
               {"unit", series.per_unit}, {"commit", commit()}};
  if (series.name == "depth") json["off_line"] = point.off_line;
  return json;
}

int run_growth(const Options& options, const Dataset& data) {
  Table table{{"what grows", "size", "ms/step", "lowest, highest", "per unit", "", "off the line"}, {}};
  for (const GrowthSeries& series : bench_growth(options.growth, options.largest, options.reps, options.bench, data)) {
    for (const GrowthPoint& point : series.points) {
      if (options.output.json) print_json(to_json(series, point));
      const auto [low, high] = std::minmax_element(point.ms.begin(), point.ms.end());
      const double ms = median(point.ms);
      table.rows.push_back({series.name, fmt::format("{}", point.size), fmt::format("{:.3f}", ms),
                            fmt::format("{:.3f} {:.3f}", *low, *high),
                            fmt::format("{:.4g}", ms * series.scale / point.units), series.per_unit,
                            series.name == "depth" ? fmt::format("{:+.1f} %", 100 * point.off_line) : ""});
    }
    if (!options.svg.empty() && !series.points.empty()) {
      std::string name = series.name;
      std::erase(name, ',');
      std::replace(name.begin(), name.end(), ' ', '_');
      write_file(options.svg + "/growth_" + name + ".svg", to_svg(series));
    }
  }
  if (!options.output.json)
    print(table.to_string() + "\n" +
          wrap(fmt::format("Steps on {}, {} thread{}, batch 128 but where it grows; medians of {} round{} of "
                           "{:g} s each. Off the line: from the line through all depths.",
                           data.name, threads(), threads() == 1 ? "" : "s", options.reps, options.reps == 1 ? "" : "s",
                           options.bench.seconds)));
  return kOk;
}

int run(Options options) {
  TrainSettings& s = options.bench.training;
  s.dtype = options.precision == "fp64" ? "float64" : "float32";
  s.precision = options.precision == "fp64" ? "fp32" : options.precision;
  use_device(s);
  warn_about_environment();
  if (options.kernels) return run_kernels(options);
  const Splits data = to_device(load_data(s), s);
  if (!data.notice.empty()) notice(data.notice);
  if (!options.growth.empty()) return run_growth(options, data.train);
  Table table{{"net", "bn", "ms/step", "p10", "p90", "samples/s", "loss first, last", "MiB"}, {}};
  std::string closing;
  for (int64_t rep = 0; rep < options.reps; ++rep) {
    const BenchRow row = bench(options.bench, data.train);
    if (options.output.json) print_json(to_json(options, row, data.train.name, rep));
    table.rows.push_back(text_cells(options, row));
    closing = footer(options, row, data.train.name);
  }
  if (!options.output.json) print(table.to_string() + "\n" + wrap(closing));
  return kOk;
}

}  // namespace

void add_bench(CLI::App& program, Action& action) {
  auto o = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("bench", "Time training steps of the reference networks.");
  command->footer(
      "  tandem bench --workload w2 --bn on             the step with batch norm\n"
      "  tandem bench --workload w3 --bn pair --json    a step of each arm, as JSON\n"
      "  tandem bench --workload w1 --threads 1 --reps 5\n"
      "  tandem bench --kernels                         each kernel's share of what a core can do\n"
      "  tandem bench --growth all --svg DIR            time over batch, depth and width\n");
  BenchSettings& b = o->bench;
  add_choice(*command, "--workload", b.training.model, {"w1", "w2", "w3"}, "the network: w1, w2 or w3");
  add_choice(*command, "--bn", b.bn, {"on", "off", "pair"},
             "with batch norm, without, or a step of each; with 2 threads both arms of a pair run at once");
  add_integer(*command, "-b,--batch-size", b.training.batch_size, 1, 1'000'000, "images a step", "128; w1 60");
  add_choice(*command, "--precision", o->precision, {"fp32", "tf32", "bf16", "fp64"},
             "fp32, fp64; on a GPU also tf32 and bf16");
  add_number(*command, "--seconds", b.seconds, {0, 86400, true}, "how long to measure, after a warm-up");
  add_integer(*command, "--reps", o->reps, 1, "measure N times, each with fresh models");
  command->add_flag("--kernels", o->kernels, "instead of steps, each kernel's share of the FMA peak; one core");
  add_choice(*command, "--growth", o->growth, {"batch", "depth", "width", "all"},
             "instead of the workload, how a step's time grows with batch, depth, width or all; --reps are rounds");
  add_integer(*command, "--largest", o->largest, 1, "of --growth: leave out sizes above N");
  add_text(*command, "--svg", o->svg, "DIR", "of --growth: draw it, a growth_*.svg each, in this folder");
  add_step_options(*command, b.training);
  add_data_options(*command, b.training);
  add_device_options(*command, b.training);
  add_output_options(*command, o->output);
  command->callback([=, &action] { action = [o] { return run(*o); }; });
}

}  // namespace tandem
