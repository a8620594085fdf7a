// Products c[M, N] = a[M, K] b[K, N] of matrices that are not in memory as such: their values are found by index maps,
// and pass through shared memory in tiles. A tile's rows are steps of K. It consists of words: a factor, or for
// bfloat16 two that are neighbours along K.
#pragma once

#include <cmath>

#include "tandem/cuda/index.h"

namespace tandem::cuda {

inline constexpr int kTileThreads = 128;
inline constexpr int kTileRows = 16;

// ---- products of two tiles ----------------------------------------------------------------------------------------

// The sums of a block, c[kM, kN], spread over its threads. kPad: words between the rows of a tile, so that the threads
// of a warp meet different banks of shared memory.
template <class T, Math math, int kM, int kN>
struct Product;

// Each thread multiplies a column of a few rows by a row of four columns.
template <class T, int kM_, int kN_>
struct Product<T, Math::fp32, kM_, kN_> {
  static constexpr int kM = kM_, kN = kN_, kPack = 1, kPad = 4;
  static constexpr int kRows = kM * kN / 4 / kTileThreads;
  using Word = T;
  T sums[kRows][4] = {};

  TANDEM_DEVICE static Word word(T value, T) { return value; }
  TANDEM_DEVICE static int row(const Block& block) { return block.thread / (kN / 4) * kRows; }
  TANDEM_DEVICE static int column(const Block& block) { return block.thread % (kN / 4) * 4; }

  TANDEM_DEVICE void add(const Block& block, const Word (&a)[kTileRows][kM + kPad],
                         const Word (&b)[kTileRows][kN + kPad]) {
    const int m = row(block), n = column(block);
    TANDEM_UNROLL
    for (int k = 0; k < kTileRows; ++k) {
      TANDEM_UNROLL
      for (int i = 0; i < kRows; ++i) {
        TANDEM_UNROLL
        for (int j = 0; j < 4; ++j) sums[i][j] = std::fma(a[k][m + i], b[k][n + j], sums[i][j]);
      }
    }
  }
  // f(row, column, sums of that column and its next neighbours)
  template <class F>
  TANDEM_DEVICE void for_sums(const Block& block, const F& f) const {
    TANDEM_UNROLL
    for (int i = 0; i < kRows; ++i) f(row(block) + i, column(block), sums[i]);
  }
};

// On tensor cores: a warp has 32 rows, and all columns or half of them, in pieces of 16 x 8.
template <Math math, int kM_, int kN_>
requires(math != Math::fp32) struct Product<float, math, kM_, kN_> {
  static constexpr int kM = kM_, kN = kN_, kPack = math == Math::bf16 ? 2 : 1, kPad = 8;
  static constexpr int kWarpsAcross = kTileThreads / kM, kWarpColumns = kN / kWarpsAcross;
  using Word = uint32_t;
  float sums[2][kWarpColumns / 8][4] = {};

  TANDEM_DEVICE static Word word(float low, float high) {
    if constexpr (math == Math::tf32) return __builtin_bit_cast(uint32_t, scalar::round_to_tf32(low));
    return __builtin_bit_cast(uint32_t, scalar::round_to_bf16(low)) >> 16 |
           __builtin_bit_cast(uint32_t, scalar::round_to_bf16(high));
  }
  TANDEM_DEVICE static int row(const Block& block) { return block.thread / kWarp / kWarpsAcross * 32; }
  TANDEM_DEVICE static int column(const Block& block) { return block.thread / kWarp % kWarpsAcross * kWarpColumns; }

  TANDEM_DEVICE void add(const Block& block, const Word (&a)[kTileRows][kM + kPad],
                         const Word (&b)[kTileRows][kN + kPad]) {
    const int g = block.thread % kWarp / 4, t = block.thread % 4, m = row(block) + g, n = column(block) + g;
    TANDEM_UNROLL
    for (int k = t; k < kTileRows; k += 8) {
      uint32_t right[kWarpColumns / 8][2];
      TANDEM_UNROLL
      for (int j = 0; j < kWarpColumns / 8; ++j) right[j][0] = b[k][n + 8 * j], right[j][1] = b[k + 4][n + 8 * j];
      TANDEM_UNROLL
      for (int i = 0; i < 2; ++i) {
        const int r = m + 16 * i;
        const uint32_t left[4] = {a[k][r], a[k][r + 8], a[k + 4][r], a[k + 4][r + 8]};
        TANDEM_UNROLL
        for (int j = 0; j < kWarpColumns / 8; ++j) {
          if constexpr (math == Math::tf32) block.mma_tf32(sums[i][j], left, right[j]);
          if constexpr (math == Math::bf16) block.mma_bf16(sums[i][j], left, right[j]);
        }
      }
    }
  }
  template <class F>
  TANDEM_DEVICE void for_sums(const Block& block, const F& f) const {
    const int m = row(block) + block.thread % kWarp / 4, n = column(block) + block.thread % 4 * 2;
    TANDEM_UNROLL
    for (int i = 0; i < 2; ++i) {
      TANDEM_UNROLL
      for (int j = 0; j < kWarpColumns / 8; ++j) {
        const float(&s)[4] = sums[i][j];
        f(m + 16 * i, n + 8 * j, {s[0], s[1]});
        f(m + 16 * i + 8, n + 8 * j, {s[2], s[3]});
      }
    }
  }
};

// ---- from memory to a tile ----------------------------------------------------------------------------------------

// One thread's part of a tile on its way, in registers, of kExtent rows of a or columns of b. A source tells
//   line(i): where row i of a, or column i of b, is;   step(k): where step k of K is;
//   load(block, line, step, values): reads one value, or four neighbours (kVector) along K (kAlongK) or across;
//     false where these lie outside: they are 0;
//   finish(block, line, step, values): what else is to be done to those inside, if kFinish.
template <class Source, class Product, int kExtent, bool kVector>
struct Stage {
  static constexpr bool kRun = kVector && Source::kAlongK;  // four steps of one line, or else kLoad lines of each step
  static constexpr int kLoad = kVector ? 4 : 1, kPack = Product::kPack;
  static constexpr int kSteps = kRun ? 4 : kPack, kLines = kRun ? 1 : kLoad, kLoads = kSteps * kLines / kLoad;
  static constexpr int kUnits = kTileRows * kPack * kExtent / (kSteps * kLines * kTileThreads);
  using Tile = typename Product::Word[kTileRows][kExtent + Product::kPad];

  typename Source::Line lines[kUnits];
  typename Source::Value values[kUnits][kLoads][kLoad];
  uint32_t inside;

  struct Unit {
    int step, line;
  };
  // The i-th unit of this thread: steps and lines from there on. Along K, a pair of threads reads 32 bytes of a line.
  TANDEM_DEVICE static Unit unit(const Block& block, int i) {
    const int u = block.thread + i * kTileThreads;
    if constexpr (Source::kAlongK) {
      constexpr int kPairs = kTileRows * kPack / kSteps / 2;
      return {(u % 2 + u / 32 % kPairs * 2) * kSteps, u / 2 % 16 + u / 32 / kPairs * 16};
    } else {
      constexpr int kAcross = kExtent / kLines;
      return {u / kAcross * kSteps, u % kAcross * kLines};
    }
  }

  TANDEM_DEVICE Stage(const Block& block, const Source& source, int first) {
    TANDEM_UNROLL
    for (int i = 0; i < kUnits; ++i) lines[i] = source.line(first + unit(block, i).line);
  }
  // f(unit, load of it, where its step is)
  template <class F>
  TANDEM_DEVICE void for_loads(const Block& block, const Source& source, int k, const F& f) {
    TANDEM_UNROLL
    for (int i = 0; i < kUnits; ++i) {
      TANDEM_UNROLL
      for (int j = 0; j < kLoads; ++j) f(i, j, source.step(k + unit(block, i).step + j));
    }
  }
  TANDEM_DEVICE void load(const Block& block, const Source& source, int k) {
    inside = 0;
    for_loads(block, source, k, [&](int i, int j, const auto& step) {
      if (source.load(block, lines[i], step, values[i][j])) inside |= 1u << (i * kLoads + j);
    });
  }
  TANDEM_DEVICE void store(const Block& block, const Source& source, int k, Tile& tile) {
    if constexpr (Source::kFinish) {
      if (source.finishes()) {
        for_loads(block, source, k, [&](int i, int j, const auto& step) {
          if (inside >> (i * kLoads + j) & 1) source.finish(block, lines[i], step, values[i][j]);
        });
      }
    }
    TANDEM_UNROLL
    for (int i = 0; i < kUnits; ++i) {
      const Unit at = unit(block, i);
      auto& v = values[i];
      TANDEM_UNROLL
      for (int j = 0; j < kLoad; j += kRun ? kPack : 1) {
        if constexpr (kRun) {
          tile[(at.step + j) / kPack][at.line] = Product::word(v[0][j], v[0][j + kPack - 1]);
        } else {
          tile[at.step / kPack][at.line + j] = Product::word(v[0][j], v[kLoads - 1][j]);
        }
      }
    }
  }
};

// ---- the kernel ---------------------------------------------------------------------------------------------------

// Blocks have tiles of N, then what the problem makes of the index, then tiles of M. problem.task(index) says
//   m, n: the extents;   begin, end: the steps of K to add up;   a, b: sources;
//   row(i): where row i of the result is;   value(sum, j): what is written in column j of it.
template <class Problem, class Product, bool kVector>
struct MultiplyTiles {
  static constexpr int threads = kTileThreads;
  static constexpr int kM = Product::kM, kN = Product::kN, kDepth = kTileRows * Product::kPack;
  using A = Stage<typename Problem::A, Product, kM, kVector>;
  using B = Stage<typename Problem::B, Product, kN, kVector>;
  struct Shared {
    alignas(16) typename A::Tile a[2];
    alignas(16) typename B::Tile b[2];
  };
  Problem problem;
  Divider tiles_n;
  bool whole_stores;  // four neighbours in a row of the result are aligned, and all there or none

  TANDEM_DEVICE void operator()(const Block& block, Shared& shared) const {
    int index = block.index;
    const int n = tiles_n.take(index) * kN;
    const auto task = problem.task(index);
    const int m = index * kM;
    if (m >= task.m) return;
    A a(block, task.a, m);
    B b(block, task.b, n);
    Product product;
    const auto load = [&](int k) {
      a.load(block, task.a, k);
      b.load(block, task.b, k);
    };
    if (task.begin < task.end) load(task.begin);
    int buffer = 0;
    for (int k = task.begin; k < task.end; k += kDepth, buffer ^= 1) {
      a.store(block, task.a, k, shared.a[buffer]);
      b.store(block, task.b, k, shared.b[buffer]);
      block.sync();  // the other buffer may be read until all have come here again
      if (k + kDepth < task.end) load(k + kDepth);
      product.add(block, shared.a[buffer], shared.b[buffer]);
    }
    product.for_sums(block, [&]<int kCount>(int i, int j, const typename Problem::Value(&sums)[kCount]) {
      if (m + i < task.m && n + j < task.n) write(block, task, m + i, n + j, sums);
    });
  }

 private:
  template <class Task, class T, int kCount>
  TANDEM_DEVICE void write(const Block& block, const Task& task, int i, int j, const T (&sums)[kCount]) const {
    T* to = task.row(i) + j;
    T values[kCount];
    TANDEM_UNROLL
    for (int l = 0; l < kCount; ++l) values[l] = j + l < task.n ? task.value(sums[l], j + l) : T(0);
    if constexpr (sizeof(T) == sizeof(float)) {
      if (whole_stores) return block.store(values, to);
    }
    TANDEM_UNROLL
    for (int l = 0; l < kCount; ++l) {
      if (j + l < task.n) to[l] = values[l];
    }
  }
};

// ---- on the host --------------------------------------------------------------------------------------------------

struct TileSize {
  int64_t m, n;
  int64_t tiles(int64_t extent_m, int64_t extent_n) const { return ceil_div(extent_m, m) * ceil_div(extent_n, n); }
};
// By the shapes alone, since sums may be split to fill the GPU (132 multiprocessors, some blocks on each).
inline constexpr int64_t kBlocksWanted = 2 * 132;
inline TileSize tile_size(int64_t m, int64_t n, int64_t others, bool vector) {
  const TileSize large = n > 32 ? TileSize{64, 64} : TileSize{128, 32};
  const bool fill = m > large.m / 2 && large.tiles(m, n) * others >= kBlocksWanted;
  return vector && fill ? large : TileSize{64, 32};
}

void expect_tensor_cores(Device device);

// Tiles of an m x n result, `others` times.
template <class Problem>
void multiply(Device device, TileSize size, Math math, bool vector, bool whole_stores, int64_t m, int64_t n,
              int64_t others, const Problem& problem) {
  using T = typename Problem::Value;
  const auto start = [&]<class P, bool kVector>(Constant<kVector>, const P*) {
    const int64_t across = ceil_div(n, size.n);
    if (across == 0) return;
    launch(device, ceil_div(m, size.m) * others * across,
           MultiplyTiles<Problem, P, kVector>{problem, Divider(across), whole_stores});
  };
  const auto with = [&]<Math kMath>(Constant<kMath>) {
    if (!vector) return start(Constant<false>{}, static_cast<Product<T, kMath, 64, 32>*>(nullptr));
    if constexpr (sizeof(T) == sizeof(float)) {
      if (size.m == 128) return start(Constant<true>{}, static_cast<Product<T, kMath, 128, 32>*>(nullptr));
      if (size.n == 64) return start(Constant<true>{}, static_cast<Product<T, kMath, 64, 64>*>(nullptr));
      start(Constant<true>{}, static_cast<Product<T, kMath, 64, 32>*>(nullptr));
    }
  };
  if constexpr (sizeof(T) == sizeof(float)) {
    if (math != Math::fp32) expect_tensor_cores(device);
    for_op<Math::bf16>(math, with);
  } else {
    with(Constant<Math::fp32>{});
  }
}

}  // namespace tandem::cuda
