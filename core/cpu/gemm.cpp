#include "tandem/core/cpu/gemm.h"

#include "tandem/core/cpu/tile.h"
#include "tandem/core/cpu/transpose.h"

namespace tandem::TANDEM_BACKEND {
namespace {

// AVX-512 has 32 registers, for 24 sums and the operands; the others have 16, for 12.
constexpr int kTileRows = kLanes == 16 ? 12 : 6, kTileVectors = 2;
constexpr int64_t kPanel = kTileVectors * kLanes;

constexpr int64_t kSmall = int64_t{1} << 23;   // products: less than handing work to a thread is worth
constexpr int64_t kJobs = 16;                  // of a larger product: as many panels or, if there are few, as many
constexpr int64_t kLeastRows = 128;            // blocks of so many rows
constexpr int64_t kFewRows = 64;               // do not pay for a copy of b
constexpr int64_t kFarK = 256;                 // so many rows of a transposed a do not stay in the caches: it is copied
constexpr int64_t kCached = int64_t{1} << 18;  // elements of a that stay in the L2 cache

// Some rows of y in one panel's columns.
struct Piece {
  int64_t rows, columns, k;
  const float* a;
  int64_t a_row, a_step;
  const float* b;
  int64_t b_step;
  float* y;
  int64_t y_row;
  const float* bias;
  bool add;
};

template <int kRows, int kVectors>
[[gnu::noinline]] void compute(const Piece& p) {
  Tile<kRows, kVectors> tile;
  const auto count = [&](int vector) { return min(p.columns - vector * kLanes, kLanes); };
  tile.zero();
  if (p.add) {
    TANDEM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      TANDEM_UNROLL
      for (int v = 0; v < kVectors; ++v) tile.sum[r][v] = load_some(p.y + r * p.y_row + v * kLanes, count(v));
    }
  }
  tile.add(p.a, p.a_row, p.a_step, p.b, p.b_step, p.k);
  TANDEM_UNROLL
  for (int v = 0; v < kVectors; ++v) {
    const Vec bias = p.bias ? load_some(p.bias + v * kLanes, count(v)) : Vec{};
    TANDEM_UNROLL
    for (int r = 0; r < kRows; ++r) {
      const Vec y = p.bias ? tile.sum[r][v] + bias : tile.sum[r][v];
      store_some(p.y + r * p.y_row + v * kLanes, y, count(v));
    }
  }
}

template <int kRows = kTileRows>
void dispatch(const Piece& p) {
  if constexpr (kRows > 1) {
    if (p.rows < kRows) return dispatch<kRows - 1>(p);
  }
  p.columns > kLanes ? compute<kRows, 2>(p) : compute<kRows, 1>(p);
}

// `rows` rows, tile by tile.
void run_panel(Piece piece, int64_t rows) {
  for (int64_t tiles = ceil_div(rows, kTileRows); tiles > 0; --tiles) {
    piece.rows = ceil_div(rows, tiles);
    dispatch(piece);
    piece.a += piece.rows * piece.a_row;
    piece.y += piece.rows * piece.y_row;
    rows -= piece.rows;
  }
}

bool copies_a(const Product& p) { return p.a.row == 1 && p.k > kFarK && p.m > kFewRows; }

// Blocks of rows that fit the L2 cache meet one panel after the other, each packed when it is first needed.
void run_job(const Product& p, Range rows, Range panels) {
  const int64_t blocks = max(1, ceil_div(rows.size() * p.k, kCached)), slots = blocks > 1 ? panels.size() : 1;
  const int64_t a_width = copies_a(p) ? ceil_div(p.k, kLanes) * kLanes : 0;
  const int64_t a_size = ceil_div(rows.size(), blocks) * a_width;
  float* memory = scratch<float>(a_size + slots * kPanel * p.k);
  const Panels packed{memory + a_size, p.k, kPanel};
  for (int64_t i = 0; i < blocks; ++i) {
    const Range block = part(rows, i, blocks);
    Matrix a{p.a.data + block.begin * p.a.row, p.a.row, p.a.column};
    if (a_width > 0) {
      pack(a, p.k, {memory, block.size(), a_width}, 0);
      a = {memory, a_width, 1};
    }
    for (int64_t panel = panels.begin; panel < panels.end; ++panel) {
      const int64_t column = panel * kPanel, columns = min(p.n - column, kPanel);
      Matrix b{p.b.data + column * p.b.column, p.b.row, p.b.column};
      if (b.column != 1 || columns % kLanes != 0 || rows.size() > kFewRows) {
        const int64_t slot = (panel - panels.begin) % slots;
        if (i == 0) pack(b, columns, packed, slot);
        b = {packed.panel(slot), kPanel, 1};
      }
      run_panel({0, columns, p.k, a.data, a.row, a.column, b.data, b.row, p.y + block.begin * p.n + column, p.n,
                 p.bias ? p.bias + column : nullptr, p.add},
                block.size());
    }
  }
}

}  // namespace

void pack(const Matrix& b, int64_t columns, const Panels& panels, int64_t panel) {
  const int64_t k = panels.k, width = panels.width;
  for (int64_t j = 0; j < columns; j += kLanes) {
    const int64_t count = min(columns - j, kLanes);
    const float* from = b.data + j * b.column;
    float* to = panels.panel(panel) + j;
    if (b.column == 1) {
      for (int64_t i = 0; i < k; ++i) store(to + i * width, load_some(from + i * b.row, count));
      continue;
    }
    for (int64_t i = 0; i < k; i += kLanes) {
      const int64_t depth = min(k - i, kLanes);
      Vec block[kLanes];
      for (int64_t l = 0; l < kLanes; ++l) block[l] = l < count ? load_some(from + l * b.column + i, depth) : Vec{};
      transpose(block);
      for (int64_t l = 0; l < depth; ++l) store(to + (i + l) * width, block[l]);
    }
  }
}

void multiply(const Product& p) {
  const Range rows{0, p.m}, panels{0, ceil_div(p.n, kPanel)};
  if (p.m * p.n * p.k < kSmall) return run_job(p, rows, panels);
  const int64_t across = min(panels.end, copies_a(p) ? 4 : kJobs);
  const int64_t down = max(1, min(ceil_div(kJobs, across), p.m / kLeastRows));
  parallel_for(across * down,
               [&](int64_t job) { run_job(p, part(rows, job % down, down), part(panels, job / down, across)); });
}

}  // namespace tandem::TANDEM_BACKEND
