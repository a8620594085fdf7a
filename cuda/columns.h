// Work along the columns of a tensor: the values of a batch norm's channel, the rows of a matrix, what a reduction adds
// up. A thread owns one column, whose constants it computes once, and walks some of its values.
#pragma once

#include "tandem/cuda/block.h"

namespace tandem::cuda {

// A thread's values: `left` of them, the next of which is number `index` of its column and element `at` of the tensor.
// Straight: equal jumps lead from one to the next; else some also turn into another pixel.
template <bool straight>
struct Values {
  int64_t at, index, i;  // i = index % inner
  int64_t jump, wrap, turn, inner;
  int rows, left;

  TANDEM_DEVICE void next() {
    at += jump;
    index += rows;
    --left;
    if constexpr (!straight) {
      i += turn;
      const bool turns = i >= inner;
      i -= turns ? inner : 0;
      at += turns ? wrap : 0;
    }
  }
};

// to[j] = load(at, index) of the next values, at most kBatch; returns how many. Together they wait for memory once.
template <int kBatch, class Value, bool straight, class Load>
TANDEM_DEVICE int load_batch(Values<straight>& values, Value (&to)[kBatch], const Load& load) {
  const int n = values.left < kBatch ? values.left : kBatch;
  TANDEM_UNROLL
  for (int j = 0; j < kBatch; ++j) {
    if (j < n) to[j] = load(values.at, values.index);
    values.next();
  }
  return n;
}

// use(at, load(at, index)) for the values.
template <class Value, int kBatch = 8, bool straight, class Load, class Use>
TANDEM_DEVICE void for_values(Values<straight> values, const Load& load, const Use& use) {
  while (values.left > 0) {
    Value batch[kBatch];
    Values<straight> used = values;
    const int n = load_batch(values, batch, load);
    TANDEM_UNROLL
    for (int j = 0; j < kBatch; ++j) {
      if (j < n) use(used.at, batch[j]);
      used.next();
    }
  }
}

// A tensor seen as [outer, pixels, channels, inner], in whose outer * channels columns there are pixels * inner values
// each. A block takes a share of `width` neighbouring columns. `rows` of its threads walk a column, every rows-th value
// each; of the threads, the nearest 1 << lane_bits walk neighbouring values, the next those of the next column.
struct Columns {
  int64_t count, channels, inner, values;  // columns; values of each
  int lane_bits = 0, width_bits = 0, rows;
  int shares = 1;      // of a column
  int64_t per_share;   // values
  int64_t outer_step;  // from a column to the same of the next `outer`
  int64_t jump, wrap, turn;
  bool straight;  // all of its values

  Columns(int threads, int64_t outer, int64_t pixels, int64_t channels_, int64_t inner_)
      : count(outer * channels_), channels(channels_), inner(max(1, inner_)), values(pixels * inner_), rows(threads) {
    outer_step = pixels * channels * inner;
    while (lane_bits < 5 && inner >> (lane_bits + 1) > 0) ++lane_bits;
    while (lane_bits + width_bits < 5 && width() < count) widen();
  }

  TANDEM_HD int width() const { return 1 << width_bits; }
  int64_t groups() const { return ceil_div(count, width()); }
  int64_t blocks() const { return groups() * shares; }
  // Where there are more than enough columns to keep all blocks busy, fewer threads a column, with at most `each`
  // values.
  void widen_while_busy(int64_t blocks, int64_t each) {
    while (rows > 1 << lane_bits && rows / 2 * each >= values && groups() >= 2 * blocks) widen();
  }
  // In how many shares a thread has `each` values.
  int64_t shares_of(int64_t each) const { return ceil_div(values, rows * each); }
  // Cuts a column into so many shares or fewer.
  void share(int64_t wanted) {
    per_share = max(1, ceil_div(ceil_div(values, max(1, wanted)), rows)) * rows;
    shares = static_cast<int>(max(1, ceil_div(values, per_share)));
    jump = rows / inner * channels * inner + rows % inner;
    turn = rows % inner;
    wrap = (channels - 1) * inner;
    straight = turn == 0 || values <= inner || channels == 1;
  }

  // Which column of the block's group a thread has, and which of the rows it is there.
  TANDEM_DEVICE int column_of(int thread) const { return thread >> lane_bits & (width() - 1); }
  TANDEM_DEVICE int row_of(int thread) const {
    return (thread >> (lane_bits + width_bits) << lane_bits) + (thread & ((1 << lane_bits) - 1));
  }
  template <bool straight>
  TANDEM_DEVICE Values<straight> of(int64_t column, int share, int row) const {
    const int64_t begin = share * per_share, end = min(values, begin + per_share), first = begin + row;
    const int64_t o = count == channels ? 0 : column / channels, pixel = inner == 1 ? first : first / inner;
    const int64_t i = first - pixel * inner;
    const int64_t at = o * outer_step + (pixel * channels + (column - o * channels)) * inner + i;
    const int left = first < end ? static_cast<int>(end - first + rows - 1) / rows : 0;
    return {at, first, i, jump, wrap, turn, inner, rows, left};
  }

 private:
  void widen() {
    ++width_bits;
    rows /= 2;
  }
};

// f(column, values) for all of them.
template <bool straight, class F>
struct MapColumns {
  static constexpr int threads = 256;
  Columns columns;
  F f;
  TANDEM_DEVICE void operator()(const Block& block) const {
    const int group = block.index / columns.shares, share = block.index - group * columns.shares;
    const int64_t column = (static_cast<int64_t>(group) << columns.width_bits) + columns.column_of(block.thread);
    if (column < columns.count) f(column, columns.of<straight>(column, share, columns.row_of(block.thread)));
  }
};
template <class F>
void map_columns(Device device, int64_t pixels, int64_t channels, int64_t inner, const F& f) {
  constexpr int64_t kBusy = 1024, kLeast = 2, kEach = 16;
  if (pixels * channels * inner == 0) return;
  Columns columns(MapColumns<true, F>::threads, 1, pixels, channels, inner);
  columns.widen_while_busy(kBusy, kEach);
  const int64_t busy = min(ceil_div(kBusy, columns.groups()), columns.shares_of(kLeast));
  columns.share(max(busy, columns.shares_of(kEach)));
  columns.straight ? launch(device, columns.blocks(), MapColumns<true, F>{columns, f})
                   : launch(device, columns.blocks(), MapColumns<false, F>{columns, f});
}

// f.finish(block, column, total of f(column, values)), where totals are F::Total: as it is constructed, of nothing;
// add() takes in another. Of a column in shares, the last block to come adds them up in order.
template <bool straight, class F>
struct ReduceColumns {
  using Total = typename F::Total;
  static constexpr int threads = 512;
  struct Shared {
    Total part[threads];
    bool last;
  };
  Columns columns;
  F f;
  Total* totals;  // [shares, count]
  int* counters;

  TANDEM_DEVICE void operator()(const Block& block, Shared& shared) const {
    const int group = block.index / columns.shares, share = block.index - group * columns.shares;
    const int64_t first = static_cast<int64_t>(group) << columns.width_bits;
    const int64_t column = first + columns.column_of(block.thread);
    const int row = columns.row_of(block.thread);
    const bool present = column < columns.count;
    if (block.thread == 0) shared.last = false;
    Total total;
    if (present) total = f(column, columns.of<straight>(column, share, row));
    add_rows(block, shared, row, total);
    if (columns.shares > 1) {
      if (row == 0 && present) {
        totals[share * columns.count + column] = total;
        const int64_t writers = min(columns.width(), columns.count - first) * columns.shares;
        if (block.count(counters + group) == writers - 1) shared.last = true;
      }
      block.sync();
      if (!shared.last) return;
      if (block.thread == 0) counters[group] = 0;
      total = Total();
      const int begin = columns.shares * row / columns.rows, end = columns.shares * (row + 1) / columns.rows;
      for (int s = begin; s < end && present; ++s) total.add(totals[s * columns.count + column]);
      add_rows(block, shared, row, total);
    }
    if (row == 0 && present) f.finish(block, column, total);
  }

  // Row 0's total becomes that of all rows.
  TANDEM_DEVICE void add_rows(const Block& block, Shared& shared, int row, Total& total) const {
    const int column = columns.column_of(block.thread);
    for (int half = columns.rows / 2; half > 0; half /= 2) {
      if (row >= half && row < 2 * half) shared.part[row * columns.width() + column] = total;
      block.sync();
      if (row < half) total.add(shared.part[(row + half) * columns.width() + column]);
    }
  }
};

// A reduction of x as [outer, pixels, channels, inner], not of 0 columns, and the workspace that it wants.
template <class F>
struct ColumnReduction {
  static constexpr int64_t kBlocks = 256, kEach = 8;
  Columns columns;

  ColumnReduction(int64_t outer, int64_t pixels, int64_t channels, int64_t inner)
      : columns(ReduceColumns<true, F>::threads, outer, pixels, channels, inner) {
    columns.widen_while_busy(kBlocks, kEach);
    columns.share(min(ceil_div(kBlocks, max(1, columns.groups())), columns.shares_of(kEach)));
  }
  int64_t totals() const { return columns.shares > 1 ? columns.shares * columns.count : 0; }
  void run(Device device, const F& f, typename F::Total* totals) const {
    const int64_t blocks = columns.blocks();
    columns.straight ? launch(device, blocks, ReduceColumns<true, F>{columns, f, totals, counters(device)})
                     : launch(device, blocks, ReduceColumns<false, F>{columns, f, totals, counters(device)});
  }
};
template <class F>
void reduce_columns(Device device, int64_t pixels, int64_t channels, int64_t inner, const F& f) {
  const ColumnReduction<F> reduction(1, pixels, channels, inner);
  reduction.run(device, f, workspace<typename F::Total>(device, reduction.totals()));
}

template <int n>
struct Sums {
  double sum[n] = {};
  TANDEM_DEVICE void add(const Sums& more) {
    for (int i = 0; i < n; ++i) sum[i] += more.sum[i];
  }
};

}  // namespace tandem::cuda
