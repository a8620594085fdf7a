#include "tandem/core/cpu/sparse.h"

#include "tandem/core/cpu/gemm.h"
#include "tandem/core/cpu/tile.h"
#include "tandem/core/cpu/transpose.h"

namespace tandem::TANDEM_BACKEND {
namespace {

// Inputs are taken in groups of neighbours: images are zero in patches, so that a group is not much denser than one
// input, and what is loaded for a row serves all of it.
constexpr int kGroup = 4;

// What a row has in a group of inputs.
struct Entry {
  float x[kGroup];
  int64_t row;
};

constexpr int64_t kBlock = 128;        // rows that share lists, and whose outputs in a panel stay in the L1 cache
constexpr int64_t kRows = 8 * kBlock;  // rows that have lists at a time

// For each group of inputs, the rows of a block in order that have a non-zero in it.
struct List {
  const Entry *begin, *end;
};

// The lists of x[rows][inputs]. They lie one after the other, so that reading them all is fast; there must be room for
// every entry, and in `masks` for a mask per vector.
void build(const float* x, int64_t rows, int64_t inputs, Entry* next, List* lists, uint16_t* masks) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < inputs; i += kLanes) {
      const unsigned mask = nonzero(load_some(x + row * inputs + i, min(inputs - i, kLanes)));
      masks[i / kLanes * kBlock + row] = static_cast<uint16_t>(mask);
    }
  }
  for (int64_t i = 0; i < inputs; i += kGroup, ++lists) {
    const int64_t width = min(inputs - i, kGroup);
    const uint16_t* mask = masks + i / kLanes * kBlock;
    const unsigned any = ((1 << kGroup) - 1) << i % kLanes;
    lists->begin = next;
    for (int64_t first = 0; first < rows; first += 64) {
      // Bit r: has row first + r a non-zero in the group? Behind the rows, masks hold anything.
      uint64_t set = having(mask + first, any) & ~uint64_t{0} >> (64 - min(rows - first, 64));
      for (; set; set &= set - 1, ++next) {
        next->row = first + __builtin_ctzll(set);
        const float* values = x + next->row * inputs + i;
        if (width == kGroup)
          __builtin_memcpy(next->x, values, sizeof(next->x));
        else
          for (int64_t l = 0; l < kGroup; ++l) next->x[l] = l < width ? values[l] : 0;
      }
    }
    lists->end = next;
  }
}

constexpr int kVectors = kLanes == 16 ? 4 : 2;  // what registers there are hold kGroup times as many
constexpr int64_t kWidth = kVectors * kLanes;   // outputs that are computed at a time
constexpr int64_t kJobs = 8;
constexpr int64_t kSmall = int64_t{1} << 24;  // products, zero or not: less than handing work to a thread is worth

// y[row][kWidth] = the products of the listed rows with w[inputs][kWidth].
template <int vectors>
void forward(const List* lists, int64_t groups, const float* w, float* y, int64_t rows) {
  for (int64_t i = 0; i < rows * kWidth; i += kLanes) store(y + i, Vec{});
  for (int64_t group = 0; group < groups; ++group, w += kGroup * kWidth) {
    Vec right[kGroup][vectors];
    TANDEM_UNROLL
    for (int g = 0; g < kGroup; ++g) {
      TANDEM_UNROLL
      for (int v = 0; v < vectors; ++v) right[g][v] = load(w + g * kWidth + v * kLanes);
    }
    const List list = lists[group];
    for (const Entry* entry = list.begin; entry != list.end; ++entry) {
      float* to = y + entry->row * kWidth;
      Vec sum[vectors];
      TANDEM_UNROLL
      for (int v = 0; v < vectors; ++v) sum[v] = load(to + v * kLanes);
      TANDEM_UNROLL
      for (int g = 0; g < kGroup; ++g) {
        const Vec left = splat(entry->x[g]);
        TANDEM_UNROLL
        for (int v = 0; v < vectors; ++v) sum[v] = fma(left, right[g][v], sum[v]);
      }
      TANDEM_UNROLL
      for (int v = 0; v < vectors; ++v) store(to + v * kLanes, sum[v]);
    }
  }
}

// sums[kGroup][kWidth] = the products of a group's rows with dy[row][kWidth], added to what is there when `add`.
template <int vectors>
void backward(const List& list, const float* dy, float* sums, bool add) {
  Tile<kGroup, vectors> tile;
  tile.zero();
  if (add) tile.load_from(sums, kWidth);
  for (const Entry* entry = list.begin; entry != list.end; ++entry) {
    tile.add(entry->x, 1, 0, dy + entry->row * kWidth, 0, 1);
  }
  tile.store_to(sums, kWidth);
}

// f(Constant<vectors>{}) for as many vectors as `columns` fill.
template <int vectors = kVectors, class F>
void for_vectors(int64_t columns, const F& f) {
  if constexpr (vectors > 1) {
    if (columns <= (vectors - 1) * kLanes) return for_vectors<vectors - 1>(columns, f);
  }
  f(Constant<vectors>{});
}

// At most kRows rows of x with their lists, and a piece of memory for each of the jobs that share the outputs.
struct Rows {
  int64_t rows, inputs, outputs;
  int64_t blocks = ceil_div(rows, kBlock), groups = ceil_div(inputs, kGroup), panels = ceil_div(outputs, kWidth);
  bool small = rows * inputs * outputs < kSmall;
  List* lists_ = nullptr;

  Range block(int64_t i) const { return part({0, rows}, i, blocks); }
  const List* lists(int64_t block) const { return lists_ + block * groups; }

  // Builds the lists, then f(panel, memory of `floats` floats) for every panel of outputs.
  template <class F>
  void run(const float* x, int64_t floats, const F& f) {
    const int64_t jobs = small ? 1 : min(panels, kJobs), vectors = ceil_div(inputs, kLanes);
    // Whole cache lines each, but for the last.
    const int64_t own = ceil_div(floats * 4, 64) * 64, entry_bytes = ceil_div(rows * groups * sizeof(Entry), 64) * 64;
    const int64_t list_bytes = blocks * groups * sizeof(List);
    char* const memory = scratch<char>(jobs * own + entry_bytes + list_bytes + blocks * vectors * kBlock * 2);
    Entry* const entries = reinterpret_cast<Entry*>(memory + jobs * own);
    lists_ = reinterpret_cast<List*>(memory + jobs * own + entry_bytes);
    uint16_t* const masks = reinterpret_cast<uint16_t*>(memory + jobs * own + entry_bytes + list_bytes);
    parallel_for(blocks, [&](int64_t i) {
      const Range of = block(i);
      build(x + of.begin * inputs, of.size(), inputs, entries + of.begin * groups, lists_ + i * groups,
            masks + i * vectors * kBlock);
    });
    parallel_for(jobs, [&](int64_t job) {
      const Range all = part({0, panels}, job, jobs);
      for (int64_t panel = all.begin; panel < all.end; ++panel) f(panel, reinterpret_cast<float*>(memory + job * own));
    });
  }
};

void rows_forward(const Linear& k, int64_t begin, int64_t rows) {
  const int64_t in = k.w.dims[1], out = k.w.dims[0], depth = ceil_div(in, kGroup) * kGroup;
  Rows all{rows, in, out};
  all.run(k.x.as<float>() + begin * in, (depth + kBlock) * kWidth, [&](int64_t panel, float* w) {
    const int64_t column = panel * kWidth, columns = min(out - column, kWidth);
    float* y = w + depth * kWidth;
    pack({k.w.as<float>() + column * in, 1, in}, columns, {w, in, kWidth}, 0);
    for_vectors(columns, [&]<int vectors>(Constant<vectors>) {
      for (int64_t i = in * kWidth; i < depth * kWidth; i += kLanes) store(w + i, Vec{});
      for (int64_t i = 0; i < all.blocks; ++i) {
        const Range block = all.block(i);
        forward<vectors>(all.lists(i), all.groups, w, y, block.size());
        for (int v = 0; v < vectors; ++v) {
          const int64_t at = column + v * kLanes, count = min(out - at, kLanes);
          const Vec bias = k.b ? load_some(k.b.as<float>() + at, count) : Vec{};
          for (int64_t row = 0; row < block.size(); ++row) {
            const Vec sum = load(y + row * kWidth + v * kLanes);
            store_some(k.y.as<float>() + (begin + block.begin + row) * out + at, k.b ? sum + bias : sum, count);
          }
        }
      }
    });
  });
}

// dw[column][row of sums] = sums[count][kWidth], `columns` of them: what pack() does, undone for a few rows.
void unpack(const float* sums, int64_t count, int64_t columns, float* dw, int64_t dw_row) {
  for (int64_t j = 0; j < columns; j += kLanes) {
    Vec block[kLanes];
    for (int64_t l = 0; l < kLanes; ++l) block[l] = load(sums + l * kWidth + j);
    transpose(block);
    for (int64_t l = 0; l < min(columns - j, kLanes); ++l) store_some(dw + (j + l) * dw_row, block[l], count);
  }
}

void rows_dw(const float* dy, const float* x, int64_t rows, int64_t in, int64_t out, float* dw, bool add) {
  Rows all{rows, in, out};
  all.run(x, rows * kWidth, [&](int64_t panel, float* right) {
    const int64_t column = panel * kWidth, columns = min(out - column, kWidth);
    pack({dy + column, out, 1}, columns, {right, rows, kWidth}, 0);
    for_vectors(columns, [&]<int vectors>(Constant<vectors>) {
      for (int64_t i = 0; i < in; i += kLanes) {
        alignas(64) float sums[kLanes * kWidth];
        float* to = dw + column * in + i;
        const int64_t count = min(in - i, kLanes);
        if (add) pack({to, 1, in}, columns, {sums, count, kWidth}, 0);
        for (int64_t j = 0; j < count; j += kGroup) {
          for (int64_t b = 0; b < all.blocks; ++b) {
            backward<vectors>(all.lists(b)[(i + j) / kGroup], right + all.block(b).begin * kWidth, sums + j * kWidth,
                              add || b > 0);
          }
        }
        unpack(sums, count, columns, to, in);
      }
    });
  });
}

}  // namespace

void sparse_linear(const Linear& k) {
  const int64_t n = k.x.dims[0];
  for (int64_t begin = 0; begin < n; begin += kRows) rows_forward(k, begin, min(n - begin, kRows));
}

void sparse_linear_dw(const LinearDw& k) {
  const int64_t in = k.x.dims[1], out = k.dy.dims[1];
  const Chunking cut = chunking(k.dy.dims);
  for (int64_t lane = 0; lane < cut.lanes(); ++lane) {
    const int64_t first = cut.lane_begin(lane), end = cut.lane_begin(lane + 1);
    for (int64_t begin = first; begin < end; begin += kRows) {
      rows_dw(k.dy.as<float>() + begin * out, k.x.as<float>() + begin * in, min(end - begin, kRows), in, out,
              k.dw.as<float>() + lane * out * in, k.dw.add || begin > first);
    }
  }
}

}  // namespace tandem::TANDEM_BACKEND
