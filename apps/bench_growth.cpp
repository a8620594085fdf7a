#include "bench_growth.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "statistics.h"
#include "svg.h"
#include "tandem/layers/build.h"

namespace tandem {

namespace {

// What is varied: the series, and the settings of a size.
struct Study {
  std::string kind;
  GrowthSeries series;
  std::function<void(TrainSettings&, int64_t size)> set;
};

GrowthSeries make_series(const std::string& name, const std::string& per_unit, double scale,
                         const std::vector<int64_t>& sizes, int64_t largest,
                         const std::function<double(int64_t)>& units) {
  GrowthSeries series{name, per_unit, scale, {}};
  for (int64_t size : sizes)
    if (size <= largest) series.points.push_back({size, units(size)});
  return series;
}

std::string repeated(const std::string& block, int64_t times) {
  std::string text;
  for (int64_t i = 0; i < times; ++i) text += block;
  return text;
}

std::vector<Study> all_studies(int64_t largest) {
  const std::vector<int64_t> batches = {1, 4, 16, 64, 256, 1024, 4096}, depths = {2, 5, 10, 20, 50, 100, 200},
                             widths = {16, 32, 64, 128, 256, 512, 1024, 2048, 4096};
  // Without batch norm, which refuses a batch of one.
  const auto batch_of = [](const std::string& model) {
    return [model](TrainSettings& s, int64_t n) { s.layers = model_text(model, false).layers, s.batch_size = n; };
  };
  const auto batch_series = [&](const std::string& name) {
    return make_series("batch, " + name, "us an image", 1e3, batches, largest, [](int64_t n) { return double(n); });
  };
  const auto weights = [](int64_t n) { return double(784 * n + n * n + 10 * n); };
  return {
      {"batch", batch_series("w2"), batch_of("w2")},
      {"batch", batch_series("w3"), batch_of("w3")},
      {"depth", make_series("depth", "us a block", 1e3, depths, largest, [](int64_t n) { return double(n); }),
       [](TrainSettings& s, int64_t n) { s.layers = repeated("dense:64,bn,relu,", n) + "dense:10"; }},
      {"width", make_series("width", "ns a weight", 1e6, widths, largest, weights),
       [](TrainSettings& s, int64_t n) { s.layers = repeated(fmt::format("dense:{},bn,relu,", n), 2) + "dense:10"; }}};
}

// The line a + b size that leaves the smallest relative errors, in the sense of least squares.
void fit_line(GrowthSeries& series) {
  double s = 0, sx = 0, sxx = 0, sy = 0, sxy = 0;
  for (const GrowthPoint& p : series.points) {
    const double x = double(p.size), y = median(p.ms), weight = 1 / (y * y);
    s += weight, sx += weight * x, sxx += weight * x * x, sy += weight * y, sxy += weight * x * y;
  }
  const double determinant = s * sxx - sx * sx;
  if (series.points.size() < 2 || determinant <= 0) return;
  const double slope = (s * sxy - sx * sy) / determinant, start = (sy - slope * sx) / s;
  for (GrowthPoint& p : series.points) p.off_line = median(p.ms) / (start + slope * double(p.size)) - 1;
}

}  // namespace

std::vector<GrowthSeries> bench_growth(const std::string& what, int64_t largest, int64_t rounds,
                                       const BenchSettings& settings, const Dataset& data) {
  std::vector<Study> studies = all_studies(largest);
  std::erase_if(studies, [&](const Study& study) { return what != "all" && study.kind != what; });
  for (int64_t round = 0; round < rounds; ++round) {
    for (Study& study : studies) {
      for (GrowthPoint& point : study.series.points) {
        BenchSettings one = settings;
        one.training.model = "custom";
        one.training.lr = 0;  // time alone: 200 layers would diverge
        study.set(one.training, point.size);
        point.ms.push_back(bench(one, data).ms_per_step);
      }
    }
  }
  std::vector<GrowthSeries> all;
  for (Study& study : studies) {
    if (study.kind == "depth") fit_line(study.series);
    all.push_back(std::move(study.series));
  }
  return all;
}

std::string to_svg(const GrowthSeries& series) {
  Line line{"median", colour_first, {}, {}, 2};
  Band band{colour_first, {}, {}, {}};
  for (const GrowthPoint& p : series.points) {
    const double scale = series.scale / p.units;
    const auto [low, high] = std::minmax_element(p.ms.begin(), p.ms.end());
    line.x.push_back(double(p.size));
    line.y.push_back(scale * median(p.ms));
    band.x.push_back(double(p.size));
    band.low.push_back(scale * *low);
    band.high.push_back(scale * *high);
  }
  const std::string axis = series.name.substr(0, series.name.find(','));
  return to_svg(LinePlot{.description = fmt::format("A training step: {} against {}", series.per_unit, series.name),
                         .x_label = axis,
                         .y_label = series.per_unit,
                         .log_x = true,
                         .log_y = true,
                         .bands = {band},
                         .lines = {line},
                         .guides = {}});
}

}  // namespace tandem
