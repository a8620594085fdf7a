// How the time of a training step grows with the batch, the depth and the width.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bench.h"

namespace tandem {

struct GrowthPoint {
  int64_t size;              // images, hidden layers or units
  double units;              // what `per_unit` counts at this size
  std::vector<double> ms{};  // a step's median, one each round
  double off_line = 0;       // depth: how far the time is from the line through all depths, as a share of it
};
struct GrowthSeries {
  std::string name;      // "batch, w2"
  std::string per_unit;  // "us an image"
  double scale;          // from milliseconds to that unit
  std::vector<GrowthPoint> points;
};

// `what`: batch (1 to 4096; w2 and w3 without batch norm), depth (2 to 200 blocks of 64 units with batch
// norm), width (16 to 4096 units in two layers), or all. Sizes above `largest` are left out. Each round measures every
// point for settings.seconds, so that a drifting machine spreads over all.
std::vector<GrowthSeries> bench_growth(const std::string& what, int64_t largest, int64_t rounds,
                                       const BenchSettings& settings, const Dataset& data);

// Time per unit against size, as a picture.
std::string to_svg(const GrowthSeries& series);

}  // namespace tandem
