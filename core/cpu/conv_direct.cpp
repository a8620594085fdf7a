#include "tandem/core/cpu/conv_direct.h"

#include "tandem/core/cpu/tile.h"

namespace tandem::TANDEM_BACKEND {
namespace {

// Where rows follow one another without a gap, an image is one long row.
void join_rows(Sliding& s) {
  if (s.lines != 1 || s.x_row != s.columns * s.x_pixel || s.y_row != s.columns * s.y_pixel) return;
  s.columns *= s.rows;
  s.rows = 1;
}

// kColumns pixels of each of kRows rows of y.
template <int kRows, int kColumns, int kVectors>
void tile(const Sliding& s, const float* x, const float* w, const float* bias, int64_t last, float* y) {
  constexpr int64_t width = kVectors * kLanes;
  Tile<kRows * kColumns, kVectors, kColumns> t;
  t.zero();
  for (int64_t l = 0; l < s.lines; ++l) {
    t.add(x + l * s.x_line, s.x_pixel, 1, w + l * s.run * width, width, s.run, s.x_row);
  }
  if (bias) t.add_row(bias);
  t.store_to(y, s.y_pixel, last, s.y_row);
}

// Pixels of a tile of y: as many sums as the registers hold.
constexpr int64_t kPixels = kRegisters == 32 ? 14 : 6;

// One image. Of narrow ones, several rows at a time.
template <int kVectors>
void block(const Sliding& s, const float* x, const float* w, const float* bias, int64_t last, float* y) {
  const auto rows = [&]<int kRows, int kColumns>(Constant<kRows>, Constant<kColumns>, int64_t i, int64_t j) {
    tile<kRows, kColumns, kVectors>(s, x + i * s.x_row + j * s.x_pixel, w, bias, last, y + i * s.y_row + j * s.y_pixel);
  };
  if (s.columns * 2 > kPixels) {
    for (int64_t i = 0; i < s.rows; ++i) {
      for_pieces(s.columns, kPixels, [&](int64_t j, int64_t count) {
        with_count<kPixels>(count, [&](auto columns) { rows(Constant<1>{}, columns, i, j); });
      });
    }
    return;
  }
  with_count<kPixels / 2>(s.columns, [&]<int kColumns>(Constant<kColumns> columns) {
    constexpr int kRows = kPixels / kColumns;
    int64_t i = 0;
    for (; i + kRows <= s.rows; i += kRows) rows(Constant<kRows>{}, columns, i, 0);
    for (; i < s.rows; ++i) rows(Constant<1>{}, columns, i, 0);
  });
}

}  // namespace

void convolve(Sliding s, const float* x, const float* packed, const float* bias, float* y) {
  if (s.rows == 0 || s.columns == 0) return;
  join_rows(s);
  for (int64_t o = 0, width; o < s.channels; o += width, packed += s.lines * s.run * width) {
    width = block_width(s.channels - o);
    const int64_t count = min(width, s.channels - o);
    float padded[kBlock];
    for (int64_t i = 0; bias && i < width; ++i) padded[i] = i < count ? bias[o + i] : 0;
    const float* b = bias ? padded : nullptr;
    for (int64_t n = 0; n < s.images; ++n) {
      const float* image = x + n * s.x_image;
      float* to = y + n * s.y_image + o;
      if (width == kBlock)
        block<2>(s, image, packed, b, count - kLanes, to);
      else
        block<1>(s, image, packed, b, count, to);
    }
  }
}

namespace {

constexpr int64_t kPixelsAtOnce = 100;
// Rows of a tile of dw, for 1, 2 and 3 vectors.
constexpr int kWeights[] = {0, 12, kRegisters == 32 ? 12 : 6, kRegisters == 32 ? 8 : 4};

template <int kRows, int kVectors>
void dw_tile(const Sliding& s, const float* x, const float* dy, bool add, int64_t last, float* dw) {
  Tile<kRows, kVectors> t;
  if (add)
    t.load_from(dw, s.lines * s.run, last);
  else
    t.zero();
  for (int64_t n = 0; n < s.images; ++n) {
    for (int64_t i = 0; i < s.rows; ++i) {
      t.add(dy + n * s.y_image + i * s.y_row, 1, s.y_pixel, x + n * s.x_image + i * s.x_row, s.x_pixel, s.columns);
    }
  }
  t.store_to(dw, s.lines * s.run, last);
}

template <int kVectors>
void dw_rows(const Sliding& s, const float* x, const float* dy, bool add, int64_t last, float* dw) {
  for_pieces(s.channels, kWeights[kVectors], [&](int64_t o, int64_t count) {
    with_count<kWeights[kVectors]>(count, [&]<int kRows>(Constant<kRows>) {
      dw_tile<kRows, kVectors>(s, x, dy + o, add, last, dw + o * s.lines * s.run);
    });
  });
}

// For one input channel, where a line of the window is too short for a vector: a tile whose rows are the places of
// the window and whose vectors are output channels.
template <int kLines, int kRun, int kVectors>
bool dw_places(const Sliding& s, const float* x, const float* dy, bool add, float* dw) {
  constexpr int kPlaces = kLines * kRun, kWidth = kVectors * static_cast<int>(kLanes);
  if (s.lines != kLines || s.run != kRun || s.channels % kWidth != 0 || kPlaces * kVectors > kRegisters) return false;
  for (int64_t o = 0; o < s.channels; o += kWidth) {
    float sums[kPlaces][kWidth];
    for (int p = 0; add && p < kPlaces; ++p) {
      for (int v = 0; v < kWidth; ++v) sums[p][v] = dw[(o + v) * kPlaces + p];
    }
    Tile<kPlaces, kVectors, kRun> t;
    if (add)
      t.load_from(sums[0], kWidth, kLanes, kRun * kWidth);
    else
      t.zero();
    for (int64_t n = 0; n < s.images; ++n) {
      for (int64_t i = 0; i < s.rows; ++i) {
        t.add(x + n * s.x_image + i * s.x_row, 1, s.x_pixel, dy + n * s.y_image + i * s.y_row + o, s.y_pixel, s.columns,
              s.x_line);
      }
    }
    t.store_to(sums[0], kWidth, kLanes, kRun * kWidth);
    for (int p = 0; p < kPlaces; ++p) {
      for (int v = 0; v < kWidth; ++v) dw[(o + v) * kPlaces + p] = sums[p][v];
    }
  }
  return true;
}

void dw_lines(const Sliding& s, const float* x, const float* dy, bool add, float* dw) {
  for (int64_t l = 0; l < s.lines; ++l) {
    for_pieces((s.run + kLanes - 1) / kLanes, 3, [&](int64_t first, int64_t vectors) {
      const int64_t t = first * kLanes, last = min(kLanes, s.run - t - (vectors - 1) * kLanes);
      with_count<3>(vectors, [&]<int kVectors>(Constant<kVectors>) {
        dw_rows<kVectors>(s, x + l * s.x_line + t, dy, add, last, dw + l * s.run + t);
      });
    });
  }
}

}  // namespace

void convolve_dw(Sliding s, const float* x, const float* dy, bool add, float* dw) {
  if (dw_places<3, 3, 2>(s, x, dy, add, dw) || dw_places<5, 5, 1>(s, x, dy, add, dw)) return;
  join_rows(s);
  // Cut so that the part of x that the tiles share stays in the L1 cache.
  const int64_t images = max(1, kPixelsAtOnce / (s.rows * s.columns)), rows = max(1, kPixelsAtOnce / s.columns);
  const Sliding all = s;
  for (int64_t n = 0; n < all.images; n += images) {
    s.images = min(images, all.images - n);
    for_pieces(all.rows, rows, [&](int64_t i, int64_t count) {
      s.rows = count;
      dw_lines(s, x + n * s.x_image + i * s.x_row, dy + n * s.y_image + i * s.y_row, add || n + i > 0, dw);
    });
  }
}

}  // namespace tandem::TANDEM_BACKEND
