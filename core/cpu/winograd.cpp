#include "tandem/core/cpu/winograd.h"

#include "tandem/core/cpu/tile.h"

namespace tandem::TANDEM_BACKEND {
namespace {

int64_t whole_vectors(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// The 2 x 2 tiles of y, all images' one after another.
struct Tiles {
  int64_t h, w, in;
  const Sliding& s;

  explicit Tiles(const Sliding& sliding)
      : h((sliding.rows + 1) / 2), w((sliding.columns + 1) / 2), in(sliding.x_pixel), s(sliding) {}
  int64_t image() const { return h * w; }
};
// One of them, the steps from tile to tile being divisions otherwise.
struct Tile2x2 {
  int64_t n, y, x;

  Tile2x2(const Tiles& t, int64_t i) : n(i / t.image()), y(i % t.image() / t.w * 2), x(i % t.w * 2) {}
  void next(const Tiles& t) {
    if ((x += 2) < 2 * t.w) return;
    x = 0;
    if ((y += 2) < 2 * t.h) return;
    y = 0;
    ++n;
  }
};

// Transformed values are written to 16 places far apart: this far before their turn these are brought near.
constexpr int64_t kAhead = 2 * kLanes;

// to[16 * stride]: B^T d B of the 4 x 4 pixels d at x, of one vector of input channels.
[[gnu::always_inline]] inline void transform_x(const Sliding& s, const float* x, float* to, int64_t stride) {
  Vec rows[4][4];
  TANDEM_UNROLL
  for (int j = 0; j < 4; ++j) {
    const float* at = x + j * s.x_pixel;
    const Vec a = load(at), b = load(at + s.x_line), d = load(at + 2 * s.x_line), e = load(at + 3 * s.x_line);
    rows[0][j] = a - d;
    rows[1][j] = b + d;
    rows[2][j] = d - b;
    rows[3][j] = b - e;
  }
  TANDEM_UNROLL
  for (int i = 0; i < 4; ++i) {
    float* out = to + i * 4 * stride;
    TANDEM_UNROLL
    for (int j = 0; j < 4; ++j) prefetch_store(out + j * stride + kAhead);
    store(out, rows[i][0] - rows[i][2]);
    store(out + stride, rows[i][1] + rows[i][2]);
    store(out + 2 * stride, rows[i][2] - rows[i][1]);
    store(out + 3 * stride, rows[i][1] - rows[i][3]);
  }
}

// The tiles of one pass: as many rows of sums as the registers hold.
constexpr int64_t kTiles = kRegisters == 32 ? 14 : 6;

// m[16][kTiles][width] = the 16 products of v[in / kLanes][16][kTiles][kLanes] with a block of the weights.
template <int kVectors>
void products(int64_t tiles, int64_t in, const float* v, const float* w, float* m) {
  constexpr int64_t width = kVectors * kLanes;
  with_count<kTiles>(tiles, [&]<int kRows>(Constant<kRows>) {
    for (int64_t p = 0; p < 16; ++p) {
      Tile<kRows, kVectors> t;
      t.zero();
      const float* from = v + p * kTiles * kLanes;
      int64_t c = in;
      for (; c >= kLanes; c -= kLanes, from += 16 * kTiles * kLanes, w += kLanes * width)
        t.add(from, kLanes, 1, w, width, kLanes);
      t.add(from, kLanes, 1, w, width, c);
      w += c * width;
      t.store_to(m + p * kTiles * width, width);
    }
  });
}

// y's 2 x 2 pixels of `lanes` channels: A^T m A, + bias. Only `rows` x `columns` of them exist.
template <int64_t stride>
[[gnu::always_inline]] inline void transform_m(const Sliding& s, const float* m, Vec bias, int64_t lanes, int64_t rows,
                                               int64_t columns, float* y) {
  Vec half[2][4];
  TANDEM_UNROLL
  for (int j = 0; j < 4; ++j) {
    const Vec a = load(m + j * stride), b = load(m + (4 + j) * stride), c = load(m + (8 + j) * stride);
    half[0][j] = a + b + c;
    half[1][j] = b - c - load(m + (12 + j) * stride);
  }
  TANDEM_UNROLL
  for (int i = 0; i < 2; ++i) {
    if (i >= rows) break;
    store_some(y + i * s.y_row, half[i][0] + half[i][1] + half[i][2] + bias, lanes);
    if (columns > 1) store_some(y + i * s.y_row + s.y_pixel, half[i][1] - half[i][2] - half[i][3] + bias, lanes);
  }
}

}  // namespace

int64_t winograd_floats(int64_t in) { return 16 * kTiles * (whole_vectors(in) + kBlock); }

void winograd(const Sliding& s, const float* x, const float* packed, const float* bias, float* y, float* memory) {
  const Tiles tiles(s);
  const int64_t in_floats = whole_vectors(tiles.in);
  float *v = memory, *m = memory + 16 * kTiles * in_floats;
  for_pieces(s.images * tiles.image(), kTiles, [&](int64_t first, int64_t count) {
    for (int64_t c = 0; c < in_floats; c += kLanes) {
      Tile2x2 at(tiles, first);
      float* to = v + 16 * kTiles * c;
      for (int64_t t = 0; t < count; ++t, at.next(tiles), to += kLanes) {
        transform_x(s, x + at.n * s.x_image + at.y * s.x_line + at.x * s.x_pixel + c, to, kTiles * kLanes);
      }
    }
    const float* w = packed;
    for (int64_t o = 0, width; o < s.channels; o += width, w += 16 * tiles.in * width) {
      width = block_width(s.channels - o);
      const auto block = [&]<int kVectors>(Constant<kVectors>) {
        constexpr int64_t stride = kTiles * kVectors * kLanes;
        products<kVectors>(count, tiles.in, v, w, m);
        for (int64_t i = 0; i < kVectors * kLanes; i += kLanes) {
          const int64_t lanes = min(kLanes, s.channels - o - i);
          const Vec b = bias ? load_some(bias + o + i, lanes) : Vec{};
          Tile2x2 to(tiles, first);
          for (int64_t t = 0; t < count; ++t, to.next(tiles)) {
            transform_m<stride>(s, m + t * width + i, b, lanes, s.rows - to.y, s.columns - to.x,
                                y + to.n * s.y_image + to.y * s.y_row + to.x * s.y_pixel + o + i);
          }
        }
      };
      width == kBlock ? block(Constant<2>{}) : block(Constant<1>{});
    }
  });
}

namespace {

// to[16][stride]: A dy A^T of 2 x 2 pixels of dy for all output channels; of them `rows` x `columns` exist.
[[gnu::always_inline]] inline void transform_dy(const Sliding& s, const float* dy, int64_t rows, int64_t columns,
                                                float* to, int64_t stride) {
  for (int64_t o = 0; o < s.channels; o += kLanes) {
    const int64_t lanes = min(kLanes, s.channels - o);
    const float* at = dy + o;
    const Vec a = load_some(at, lanes), b = columns > 1 ? load_some(at + s.y_pixel, lanes) : Vec{};
    const Vec c = rows > 1 ? load_some(at + s.y_row, lanes) : Vec{};
    const Vec d = rows > 1 && columns > 1 ? load_some(at + s.y_row + s.y_pixel, lanes) : Vec{};
    const Vec left[4] = {a, a + c, a - c, -c}, right[4] = {b, b + d, b - d, -d};
    TANDEM_UNROLL
    for (int i = 0; i < 4; ++i) {
      float* out = to + i * 4 * stride + o;
      TANDEM_UNROLL
      for (int j = 0; j < 4; ++j) prefetch_store(out + j * stride + kAhead);
      store(out, left[i]);
      store(out + stride, left[i] + right[i]);
      store(out + 2 * stride, left[i] - right[i]);
      store(out + 3 * stride, -right[i]);
    }
  }
}

// u[out, in_floats] = (add ? u : 0) + the sum over `tiles` of dy's row [out] and x's row [in].
void add_products(int64_t tiles, const float* v, int64_t in_floats, const float* dy, int64_t out, int64_t out_floats,
                  bool add, float* u) {
  constexpr int kMost[] = {0, 12, kRegisters == 32 ? 12 : 6, kRegisters == 32 ? 8 : 4};
  for_pieces(in_floats / kLanes, 3, [&](int64_t c, int64_t vectors) {
    with_count<3>(vectors, [&]<int kVectors>(Constant<kVectors>) {
      for_pieces(out, kMost[kVectors], [&](int64_t o, int64_t count) {
        with_count<kMost[kVectors]>(count, [&]<int kRows>(Constant<kRows>) {
          float* to = u + o * in_floats + c * kLanes;
          Tile<kRows, kVectors> t;
          if (add)
            t.load_from(to, in_floats);
          else
            t.zero();
          t.add(dy + o, 1, out_floats, v + c * kLanes, in_floats, tiles);
          t.store_to(to, in_floats);
        });
      });
    });
  });
}

// 3 sums along one axis from 4: G^T u.
struct Three {
  Vec v[3];
};
[[gnu::always_inline]] inline Three narrow(Vec a, Vec b, Vec c, Vec d) {
  const Vec half = splat(0.5f), sum = (b + c) * half;
  return {{a + sum, (b - c) * half, sum + d}};
}

// dw[9 * in] = (add ? dw : 0) + G^T u G of one output channel; u's 16 lie `stride` apart.
void transform_u(const float* u, int64_t stride, int64_t in, bool add, float* dw) {
  for (int64_t c = 0; c < in; c += kLanes) {
    const int64_t lanes = min(kLanes, in - c);
    Three columns[4];
    TANDEM_UNROLL
    for (int j = 0; j < 4; ++j) {
      const float* at = u + j * stride + c;
      columns[j] = narrow(load(at), load(at + 4 * stride), load(at + 8 * stride), load(at + 12 * stride));
    }
    TANDEM_UNROLL
    for (int i = 0; i < 3; ++i) {
      const Three row = narrow(columns[0].v[i], columns[1].v[i], columns[2].v[i], columns[3].v[i]);
      TANDEM_UNROLL
      for (int j = 0; j < 3; ++j) {
        float* to = dw + (i * 3 + j) * in + c;
        store_some(to, add ? load_some(to, lanes) + row.v[j] : row.v[j], lanes);
      }
    }
  }
}

// As many tiles at once as leave their transforms in the L2 cache.
int64_t tiles_at_once(const Sliding& s) { return max(16, 10000 / (s.x_pixel + s.channels)); }

}  // namespace

int64_t winograd_dw_floats(const Sliding& s) {
  const int64_t in = whole_vectors(s.x_pixel), out = whole_vectors(s.channels);
  return 16 * (tiles_at_once(s) * (in + out) + out * in);
}

void winograd_dw(const Sliding& s, const float* x, const float* dy, bool add, float* dw, float* memory) {
  const Tiles tiles(s);
  const int64_t in = whole_vectors(tiles.in), out = whole_vectors(s.channels), most = tiles_at_once(s);
  float *v = memory, *w = v + 16 * most * in, *u = w + 16 * most * out;
  for_pieces(s.images * tiles.image(), most, [&](int64_t first, int64_t count) {
    Tile2x2 at(tiles, first);
    for (int64_t t = 0; t < count; ++t, at.next(tiles)) {
      for (int64_t c = 0; c < in; c += kLanes) {
        float* to = v + t * in + c;
        transform_x(s, x + at.n * s.x_image + at.y * s.x_line + at.x * s.x_pixel + c, to, count * in);
      }
      transform_dy(s, dy + at.n * s.y_image + at.y * s.y_row + at.x * s.y_pixel, s.rows - at.y, s.columns - at.x,
                   w + t * out, count * out);
    }
    for (int64_t p = 0; p < 16; ++p) {
      add_products(count, v + p * count * in, in, w + p * count * out, s.channels, out, first > 0,
                   u + p * s.channels * in);
    }
  });
  for (int64_t o = 0; o < s.channels; ++o) {
    transform_u(u + o * in, s.channels * in, tiles.in, add, dw + o * 9 * tiles.in);
  }
}

}  // namespace tandem::TANDEM_BACKEND
