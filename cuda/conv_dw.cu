// The weights' gradient: dw[O, places C]^T = windows of x [pixels, places C]^T dy[pixels, O], for each group. The
// pixels are cut into pieces, whose sums go to memory and are then added up.
#include "tandem/core/cuda.h"
#include "tandem/cuda/conv.h"

namespace tandem::cuda {
namespace {

constexpr int64_t kBlocksOfPieces = 3 * 132;  // three blocks for each multiprocessor
constexpr int64_t kLeastPiece = 128;          // pixels
constexpr int64_t kDepths = 32;               // a piece has whole steps of every tile

template <class T>
struct ConvDwProblem {
  using Value = T;
  using A = Patches<T, true, true>;
  using B = Matrix<T, false>;
  A x;
  B dy;        // of the first group
  T* partial;  // [pieces, groups, places C, O] of a group each
  int piece, group_out, group_c;
  Divider groups, pieces;

  struct Task {
    A a;
    B b;
    T* partial;
    int m, n, begin, end;

    TANDEM_DEVICE T* row(int i) const { return partial + i * n; }
    TANDEM_DEVICE T value(T sum, int) const { return sum; }
  };
  TANDEM_DEVICE Task task(int& index) const {
    const int group = groups.take(index), i = pieces.take(index), pixels = x.windows.rows;
    const int rows = x.windows.columns, begin = i * piece, end = pixels - begin < piece ? pixels : begin + piece;
    const int64_t slot = static_cast<int64_t>(i) * groups.divisor + group;
    Task t{x, dy, partial + slot * rows * group_out, rows, group_out, begin, end};
    t.a.windows.first_channel = group * group_c;
    t.b.memory += group * group_out;
    return t;
  }
};

// dw = the pieces' sums, or += : every eighth piece by each warp, then these eight.
template <class T>
struct AddPieces {
  static constexpr int threads = 256, kWarps = threads / kWarp;
  struct Shared {
    T sums[kWarps][kWarp];
  };
  const T* partial;
  T* dw;
  int numel, pieces;
  bool add;
  Divider group_out, rows;

  TANDEM_DEVICE void operator()(const Block& block, Shared& shared) const {
    const int warp = block.thread / kWarp, lane = block.thread % kWarp, element = block.index * kWarp + lane;
    T sum = 0;
    if (element < numel) {
      TANDEM_UNROLL
      for (int p = warp; p < pieces; p += kWarps) sum += partial[static_cast<int64_t>(p) * numel + element];
    }
    shared.sums[warp][lane] = sum;
    block.sync();
    if (warp > 0 || element >= numel) return;
    for (int w = 1; w < kWarps; ++w) sum += shared.sums[w][lane];
    int i = element;
    const int out = group_out.take(i), row = rows.take(i);
    T& to = dw[static_cast<int64_t>(i * group_out.divisor + out) * rows.divisor + row];
    to = add ? to + sum : sum;
  }
};

}  // namespace
}  // namespace tandem::cuda

namespace tandem {
using namespace cuda;

void run(Cuda, const ConvDw& k) {
  const Device device = k.dw.device;
  const ConvShape s(k.x.dims, k.dy.dims, k.window, k.groups);
  const int64_t n = k.x.dims[0], rows = s.places * s.group_c, numel = rows * s.out_c;
  floating(k.dw.dtype, [&]<class T>(T) {
    T* dw = k.dw.as<T>();
    // On a GPU there is one lane; further ones would be empty sums.
    if (!k.dw.add && (n == 0 || k.dw.dims[0] > 1)) {
      fill_bytes(dw, device, 0, static_cast<size_t>(k.dw.dims.numel()) * sizeof(T));
    }
    if (numel == 0) return;
    const bool vector = s.vectors(k.x.as<T>(), k.dy.as<T>());
    const TileSize size = tile_size(rows, s.group_out, kBlocksWanted, vector);
    const int64_t tiles = size.tiles(rows, s.group_out) * s.groups, most = ceil_div(kBlocksOfPieces, tiles);
    double* memory = workspace<double>(device, prologue_size(k) + most * numel);
    const Prologue<T> p = prologue<T>(k, memory);
    T* partial = reinterpret_cast<T*>(memory + prologue_size(k));
    bool add = k.dw.add;
    for_images(n, s.frame(), [&](int64_t first, int64_t images) {
      const int64_t pixels = images * s.pixels();
      const int64_t piece = ceil_div(max(ceil_div(pixels, most), kLeastPiece), kDepths) * kDepths;
      const int64_t pieces = ceil_div(pixels, piece);
      const T *x = k.x.as<T>() + first * s.image(), *dy = k.dy.as<T>() + first * s.pixels() * s.out_c;
      const ConvDwProblem<T> problem{
          {s.windows(x, images), p},
          {dy, static_cast<int>(s.group_out), 1, static_cast<int>(pixels), static_cast<int>(s.out_c)},
          partial,
          static_cast<int>(piece),
          static_cast<int>(s.group_out),
          static_cast<int>(s.group_c),
          Divider(s.groups),
          Divider(pieces)};
      multiply(device, size, k.math, vector, s.group_out % 4 == 0, rows, s.group_out, s.groups * pieces, problem);
      launch(device, ceil_div(numel, kWarp),
             AddPieces<T>{partial, dw, static_cast<int>(numel), static_cast<int>(pieces), add, Divider(s.group_out),
                          Divider(rows)});
      add = true;
    });
  });
}

}  // namespace tandem
