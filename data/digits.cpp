#include "tandem/data/digits.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <string>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/core/parallel.h"
#include "tandem/core/random.h"

// Only + - * / and sqrt, which every machine rounds alike, so that a seed gives the same images everywhere.
namespace tandem {
namespace {

constexpr int kSide = 28;

struct Point {
  double x, y;
};
using Stroke = std::vector<Point>;
using Glyph = std::vector<Stroke>;

// Ways to write each digit: strokes of points XXYY in percent of the digit's box (y down), drawn as smooth
// curves through the points; "/" lifts the pen, which also makes corners.
struct Style {
  int digit;
  const char* strokes;
};
constexpr Style kStyles[] = {
    {0, "4503 2018 1250 2084 5098 8082 8850 8018 5202 3808"},
    {0, "6505 4006 2230 2068 3894 6294 7865 7828 5802 4012"},
    {0, "5004 1525 1075 5097 9075 8825 5503 2016"},
    {1, "5002 5050 5098"},
    {1, "3024 5202 / 5202 5150 5098"},
    {1, "3024 5202 / 5202 5050 5098 / 2598 5097 7698"},
    {2, "1525 3005 6002 8222 7050 4078 1297 / 1297 5095 9098"},
    {2, "1820 4002 7510 7838 5065 2290 1092 1478 3578 6594 9290"},
    {2, "2018 5003 7820 7045 4572 1596 / 1596 4588 6596 8892"},
    {3, "1512 4502 7815 7038 4248 / 4248 7856 8580 5098 1288"},
    {3, "1504 5004 8204 / 8204 4542 / 4542 8052 8284 4598 1288"},
    {3, "2010 5502 7520 5046 4048 6052 8270 6594 3098 1290"},
    {4, "2502 1530 1256 5058 8852 / 7505 7050 6898"},
    {4, "6802 1062 / 1062 5062 9262 / 6802 6650 6698"},
    {4, "2504 2030 3048 6046 7640 / 8002 7840 7098"},
    {5, "8504 3004 / 3004 2245 / 2245 5536 8560 7092 4098 1288"},
    {5, "8206 4504 2820 3542 7055 7582 4598 1590"},
    {5, "2805 2440 / 2440 5036 8258 7890 4598 1588 / 2805 5506 8802"},
    {6, "7002 3525 1560 2592 5598 8280 7055 4055 1872"},
    {6, "3802 2040 1880 4598 7585 7060 4058 2075"},
    {6, "8008 5002 2530 1565 3096 6596 8075 6552 3558 2074"},
    {7, "1006 5004 8806 / 8806 6045 4298"},
    {7, "1006 5004 8806 / 8806 6045 4298 / 3550 8048"},
    {7, "1222 1404 / 1404 5008 8604 / 8604 7030 5560 5098"},
    {8, "7215 4502 2218 4545 7572 5098 2078 5047 7622 6810"},
    {8, "5002 2515 2538 5048 7538 7515 5002 / 5048 2062 1886 5098 8286 8062 5048"},
    {8, "7808 4004 2522 6050 8075 5598 2084 3058 7030 7808"},
    {9, "8020 5002 2020 3048 6048 8020 / 8020 7660 6598"},
    {9, "8020 5002 2020 3048 6048 8020 / 8020 8260 6592 3598 1888"},
    {9, "7812 4504 2024 3544 6540 7812 / 7812 7050 5098"},
};

std::vector<std::vector<Glyph>> parse_styles() {
  std::vector<std::vector<Glyph>> glyphs(10);
  for (const Style& style : kStyles) {
    Glyph glyph(1);
    for (const char* c = style.strokes; *c; ++c) {
      if (*c == '/') {
        glyph.emplace_back();
      } else if (*c != ' ') {
        const auto percent = [&](int i) { return (10 * (c[i] - '0') + (c[i + 1] - '0')) / 100.0; };
        glyph.back().push_back({percent(0), percent(2)});
        c += 3;
      }
    }
    glyphs[style.digit].push_back(std::move(glyph));
  }
  return glyphs;
}

// The random numbers of one sample, in order.
class Draws {
 public:
  explicit Draws(const Stream& stream) : stream_(stream) {}
  double uniform(double low, double high) { return low + (high - low) * stream_.uniform(next_++); }
  uint64_t below(uint64_t n) { return stream_.below(next_++, n); }
  // Bell-shaped with mean 0 and this standard deviation, within 3.5 of them: the sum of four 16-bit uniforms.
  double bell(double deviation) {
    const uint64_t bits = stream_.bits(next_++);
    double sum = -2;
    for (int i = 0; i < 4; ++i) sum += static_cast<double>(bits >> (16 * i) & 0xffff) * 0x1p-16;
    return sum * 1.7320508075688772 * deviation;
  }

 private:
  const Stream stream_;
  uint64_t next_ = 0;
};

// Elastic deformation: random displacements on a grid, blended smoothly in between.
class Warp {
 public:
  Warp(Draws& draws, double deviation) {
    for (Point& p : grid_) p = {draws.bell(deviation), draws.bell(deviation)};
  }
  Point operator()(Point p) const {
    const double u = std::clamp(p.x, 0.0, 0.999) * (kCells - 1), v = std::clamp(p.y, 0.0, 0.999) * (kCells - 1);
    const int i = static_cast<int>(u), j = static_cast<int>(v);
    const auto smooth = [](double t) { return t * t * (3 - 2 * t); };
    const double a = smooth(u - i), b = smooth(v - j);
    const Point *top = grid_ + j * kCells + i, *bottom = top + kCells;
    const auto blend = [&](double p00, double p01, double p10, double p11) {
      return (1 - b) * ((1 - a) * p00 + a * p01) + b * ((1 - a) * p10 + a * p11);
    };
    return {p.x + blend(top[0].x, top[1].x, bottom[0].x, bottom[1].x),
            p.y + blend(top[0].y, top[1].y, bottom[0].y, bottom[1].y)};
  }

 private:
  static constexpr int kCells = 4;
  Point grid_[kCells * kCells];
};

// A smooth curve through the points (Catmull-Rom), as a polyline.
Stroke smooth_curve(const Stroke& points) {
  constexpr int kSteps = 5;
  Stroke curve = {points.front()};
  for (size_t i = 0; i + 1 < points.size(); ++i) {
    const Point p1 = points[i], p2 = points[i + 1];
    const Point p0 = i > 0 ? points[i - 1] : p1, p3 = i + 2 < points.size() ? points[i + 2] : p2;
    for (int s = 1; s <= kSteps; ++s) {
      const double t = static_cast<double>(s) / kSteps;
      const auto at = [t](double a, double b, double c, double d) {
        return 0.5 * (2 * b + t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))));
      };
      curve.push_back({at(p0.x, p1.x, p2.x, p3.x), at(p0.y, p1.y, p2.y, p3.y)});
    }
  }
  return curve;
}

// The digit as one hand writes it once, in pixels.
Glyph write(const Glyph& glyph, Draws& draws) {
  const Warp warp(draws, 0.085);
  const double t = draws.bell(0.06);  // tangent of half the angle of rotation
  const double cosine = (1 - t * t) / (1 + t * t), sine = 2 * t / (1 + t * t);
  const double slant = draws.bell(0.06);
  const double height = draws.uniform(16, 22), width = height * draws.uniform(0.55, 1.0);
  const double shift_x = draws.bell(0.9), shift_y = draws.bell(0.9);
  Glyph written;
  for (const Stroke& stroke : glyph) {
    Stroke points = stroke;
    for (Point& p : points) p = {p.x + draws.bell(0.04), p.y + draws.bell(0.04)};
    points = smooth_curve(points);
    for (Point& p : points) {
      p = warp(p);
      const double x = (p.x - 0.5) * width - slant * (p.y - 0.5) * height, y = (p.y - 0.5) * height;
      p = {cosine * x - sine * y + kSide / 2.0 + shift_x, sine * x + cosine * y + kSide / 2.0 + shift_y};
    }
    written.push_back(std::move(points));
  }
  return written;
}

// depth[pixel] = how far the pixel's centre lies inside the ink of the line from a to b, at most so far.
void draw_line(Point a, Point b, double radius, double* depth) {
  const double reach = radius + 1;
  const auto first = [&](double lo) { return std::clamp(static_cast<int>(lo - reach), 0, kSide); };
  const auto last = [&](double hi) { return std::clamp(static_cast<int>(hi + reach) + 1, 0, kSide); };
  const double dx = b.x - a.x, dy = b.y - a.y, length2 = dx * dx + dy * dy + 1e-12;
  for (int y = first(std::min(a.y, b.y)); y < last(std::max(a.y, b.y)); ++y) {
    for (int x = first(std::min(a.x, b.x)); x < last(std::max(a.x, b.x)); ++x) {
      const double px = x + 0.5 - a.x, py = y + 0.5 - a.y;
      const double t = std::clamp((px * dx + py * dy) / length2, 0.0, 1.0);
      const double ex = px - t * dx, ey = py - t * dy;
      depth[y * kSide + x] = std::max(depth[y * kSide + x], radius - std::sqrt(ex * ex + ey * ey));
    }
  }
}

void draw_digit(const Glyph& glyph, Draws& draws, uint8_t* image) {
  const Glyph written = write(glyph, draws);
  const double radius = draws.uniform(0.7, 1.7), taper = draws.bell(0.15), ink = draws.uniform(0.8, 1.1);
  double depth[kSide * kSide];
  std::fill(std::begin(depth), std::end(depth), -1.0);
  for (const Stroke& stroke : written) {
    for (size_t i = 0; i + 1 < stroke.size(); ++i) {
      const double along = static_cast<double>(i) / static_cast<double>(stroke.size());
      draw_line(stroke[i], stroke[i + 1], radius * (1 + taper * (along - 0.5)), depth);
    }
  }
  for (int i = 0; i < kSide * kSide; ++i) {
    const double coverage = std::clamp(depth[i] + 0.5, 0.0, 1.0);
    const double value = coverage > 0 ? coverage * ink * (1 - draws.uniform(0, 0.25)) : 0;
    image[i] = static_cast<uint8_t>(std::min(1.0, value) * 255 + 0.5);
  }
}

}  // namespace

Dataset make_digits(int64_t n, uint64_t seed) {
  if (n < 1 || n > INT32_MAX)
    throw ValueError(fmt::format("make_digits: expected 1 to {} images, got {}", INT32_MAX, n));
  static const std::vector<std::vector<Glyph>> glyphs = parse_styles();
  Tensor x = empty({n, kSide, kSide, 1}, {.dtype = Dtype::uint8}), y = empty({n}, {.dtype = Dtype::int32});
  uint8_t* images = x.mutable_data<uint8_t>();
  int32_t* labels = y.mutable_data<int32_t>();
  const auto draw = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      Draws draws(Stream(seed, "digits/" + std::to_string(i)));
      labels[i] = static_cast<int32_t>(draws.below(10));
      const std::vector<Glyph>& styles = glyphs[labels[i]];
      draw_digit(styles[draws.below(styles.size())], draws, images + i * kSide * kSide);
    }
  };
  parallel_ranges(n, 256, draw);
  return {"digits", x, y, 10, 0, n};
}

}  // namespace tandem
