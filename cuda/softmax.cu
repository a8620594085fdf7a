#include "tandem/cuda/block.h"

namespace tandem::cuda {
namespace {

// A row's largest element, the first of equals. A NaN is not the largest, but makes the row's sums NaN.
struct Top {
  double value;
  int64_t index;

  TANDEM_DEVICE void take(const Top& other) {
    const bool better = other.value > value || (other.value == value && other.index < index);
    value = better ? other.value : value;
    index = better ? other.index : index;
  }
};

constexpr int kThreads = 256, kWarps = kThreads / kWarp;
struct TeamShared {
  double sums[2][kWarps];
  Top tops[kWarps];
};

// The `size` threads that a row has: a part of a warp, or the block. All of the block call its functions.
template <int size>
struct Team {
  static constexpr bool kBlock = size > kWarp;
  const Block& block;
  TeamShared& shared;

  TANDEM_DEVICE int lane() const { return block.thread % size; }

  // In a fixed order. The two sums of a row have different places.
  TANDEM_DEVICE double sum(double value, int place) const {
    if constexpr (kBlock) {
      return block_sum(block, value, shared.sums[place]);
    } else {
      for (int mask = size / 2; mask > 0; mask /= 2) value += block.shuffle_xor(value, mask);
      return value;
    }
  }

  template <class T>
  TANDEM_DEVICE Top top(const T* x, int64_t n) const {
    T largest = static_cast<T>(-__builtin_inf());
    int64_t index = lane();
    for (int64_t i = lane(); i < n; i += size) {
      index = x[i] > largest ? i : index;
      largest = x[i] > largest ? x[i] : largest;
    }
    Top best{static_cast<double>(largest), index};
    for (int mask = (kBlock ? kWarp : size) / 2; mask > 0; mask /= 2) {
      best.take({block.shuffle_xor(best.value, mask), block.shuffle_xor(best.index, mask)});
    }
    if constexpr (kBlock) {
      if (lane() % kWarp == 0) shared.tops[lane() / kWarp] = best;
      block.sync();
      for (int w = 0; w < kWarps; ++w) best.take(shared.tops[w]);
    }
    return best;
  }

  // The sum of exp(x[i] - largest) but for the largest's, which is 1: apart from it, small sums keep their digits.
  template <class T>
  TANDEM_DEVICE double exponentials(const T* x, int64_t n, const Top& top) const {
    double others = 0;
    for (int64_t i = lane(); i < n; i += size) {
      const double e = static_cast<double>(scalar::exp(x[i] - static_cast<T>(top.value)));
      others += i == top.index ? e - 1 : e;
    }
    return sum(others, 0);
  }
};

// f(team, row, its width) for all rows. Where a team has none left, its width is 0.
template <int size, class F>
struct ForRows {
  static constexpr int threads = kThreads;
  using Shared = TeamShared;
  int64_t rows, width;
  F f;
  TANDEM_DEVICE void operator()(const Block& block, Shared& shared) const {
    const int64_t row = static_cast<int64_t>(block.index) * (threads / size) + block.thread / size;
    f(Team<size>{block, shared}, row, row < rows ? width : 0);
  }
};
template <class F>
void for_rows(const View& x, const F& f) {
  if (x.dims.numel() == 0) return;
  const int64_t width = x.dims[x.dims.rank() - 1], rows = x.dims.numel() / width;
  const auto launch_teams = [&]<int size>(Constant<size>) {
    launch(x.device, ceil_div(rows, kThreads / size), ForRows<size, F>{rows, width, f});
  };
  if (width <= 32) return launch_teams(Constant<8>{});
  if (width <= 512) return launch_teams(Constant<kWarp>{});
  launch_teams(Constant<kThreads>{});
}

template <class T>
struct SoftmaxRow {
  const T* x_rows;
  T* y_rows;
  bool log;

  template <int size>
  TANDEM_DEVICE void operator()(const Team<size>& team, int64_t row, int64_t n) const {
    const T* x = x_rows + row * n;
    T* y = y_rows + row * n;
    const Top top = team.top(x, n);
    const T largest = static_cast<T>(top.value);
    const double others = team.exponentials(x, n, top), log_sum = std::log1p(others), sum = 1 + others;
    for (int64_t i = team.lane(); i < n; i += size) {
      const T below = x[i] - largest;
      y[i] = static_cast<T>(log ? static_cast<double>(below) - log_sum : static_cast<double>(scalar::exp(below)) / sum);
    }
  }
};

template <class T>
struct SoftmaxGradRow {
  const T *y_rows, *dy_rows;
  T* dx_rows;
  bool log;

  template <int size>
  TANDEM_DEVICE void operator()(const Team<size>& team, int64_t row, int64_t n) const {
    const T *y = y_rows + row * n, *dy = dy_rows + row * n;
    T* dx = dx_rows + row * n;
    double sum = 0;
    for (int64_t i = team.lane(); i < n; i += size) sum += static_cast<double>(log ? dy[i] : dy[i] * y[i]);
    const T total = static_cast<T>(team.sum(sum, 0));
    for (int64_t i = team.lane(); i < n; i += size) {
      dx[i] = log ? dy[i] - scalar::exp(y[i]) * total : y[i] * (dy[i] - total);
    }
  }
};

// The loss of a row, its gradient, or both.
template <class T>
struct CrossEntropyRow {
  const T* x_rows;
  const int32_t* labels;
  T *losses, *dx_rows;   // either may be null
  const T* upstream_of;  // of each row, or of all; null: 1
  bool one_upstream;
  double smoothing, scale;

  template <int size>
  TANDEM_DEVICE void operator()(const Team<size>& team, int64_t row, int64_t n) const {
    const T* x = x_rows + row * n;
    const Top top = team.top(x, n);
    const double others = team.exponentials(x, n, top);
    if (losses) {
      const double loss = loss_of(team, x, row, n, top, std::log1p(others));
      if (team.lane() == 0 && n > 0) losses[row] = static_cast<T>(loss);
    }
    if (dx_rows && n > 0) differentiate(team, x, row, n, top, 1 + others);
  }

 private:
  template <int size>
  TANDEM_DEVICE double loss_of(const Team<size>& team, const T* x, int64_t row, int64_t n, const Top& top,
                               double loss) const {
    double mean = 0;
    if (smoothing != 0) {
      for (int64_t i = team.lane(); i < n; i += size) mean += static_cast<double>(x[i]) - top.value;
      mean = team.sum(mean, 1) / static_cast<double>(n);
    }
    if (n == 0) return 0;
    const int64_t label = labels[row];
    const bool stray = label < 0 || label >= n;
    loss -= (1 - smoothing) * (stray ? __builtin_nan("") : static_cast<double>(x[label]) - top.value);
    return loss - smoothing * mean;
  }

  template <int size>
  TANDEM_DEVICE void differentiate(const Team<size>& team, const T* x, int64_t row, int64_t n, const Top& top,
                                   double sum) const {
    const int64_t label = labels[row];
    const double everywhere = smoothing / static_cast<double>(n);
    const double upstream = upstream_of ? static_cast<double>(upstream_of[one_upstream ? 0 : row]) * scale : scale;
    for (int64_t i = team.lane(); i < n; i += size) {
      const double target = (i == label ? 1 - smoothing : 0.0) + everywhere;
      const double e = static_cast<double>(scalar::exp(x[i] - static_cast<T>(top.value)));
      dx_rows[row * n + i] = static_cast<T>(upstream * (e / sum - target));
    }
  }
};

// One block: the first stray value is the one noted.
struct NoteStray {
  static constexpr int threads = 1024;
  struct Shared {
    int64_t first[threads / kWarp];
  };
  const int32_t* index;
  int64_t count, n;
  uint64_t asker;
  unsigned long long* word;

  TANDEM_DEVICE void operator()(const Block& block, Shared& shared) const {
    int64_t first = block.thread;
    while (first < count && index[first] >= 0 && index[first] < n) first += threads;
    for (int mask = kWarp / 2; mask > 0; mask /= 2) first = min(first, block.shuffle_xor(first, mask));
    if (block.thread % kWarp == 0) shared.first[block.thread / kWarp] = first;
    block.sync();
    if (block.thread != 0) return;
    for (int w = 1; w < threads / kWarp; ++w) first = min(first, shared.first[w]);
    if (first >= count) return;
    const uint64_t extent = static_cast<uint64_t>(min(n, (int64_t{1} << 30) - 1));
    block.exchange_if(word, 0, (asker + 1) << 62 | extent << 32 | static_cast<uint32_t>(index[first]));
  }
};

}  // namespace
}  // namespace tandem::cuda

namespace tandem {
using namespace cuda;

void run(Cuda, const Softmax& k) {
  floating(k.x.dtype, [&]<class T>(T) { for_rows(k.x, SoftmaxRow<T>{k.x.as<T>(), k.y.as<T>(), k.log}); });
}

void run(Cuda, const SoftmaxGrad& k) {
  floating(k.y.dtype, [&]<class T>(T) {
    for_rows(k.y, SoftmaxGradRow<T>{k.y.as<T>(), k.dy.as<T>(), k.dx.as<T>(), k.log});
  });
}

void run(Cuda, const CrossEntropy& k) {
  floating(k.x.dtype, [&]<class T>(T) {
    for_rows(k.x, CrossEntropyRow<T>{k.x.as<T>(), k.label.as<int32_t>(), k.loss.as<T>(), nullptr, nullptr, true,
                                     k.smoothing, 1});
  });
}

void run(Cuda, const CrossEntropyGrad& k) {
  floating(k.x.dtype, [&]<class T>(T) {
    for_rows(k.x, CrossEntropyRow<T>{k.x.as<T>(), k.label.as<int32_t>(), nullptr, k.dx.as<T>(), k.dloss.as<T>(),
                                     k.dloss.dims.numel() == 1, k.smoothing, k.scale});
  });
}

void run(Cuda, const CrossEntropyBoth& k) {
  floating(k.x.dtype, [&]<class T>(T) {
    for_rows(k.x, CrossEntropyRow<T>{k.x.as<T>(), k.label.as<int32_t>(), k.loss.as<T>(), k.dx.as<T>(), nullptr, true,
                                     k.smoothing, k.scale});
  });
}

void run(Cuda, const CheckIndex& k) {
  const int64_t count = k.index.dims.numel();
  launch(k.index.device, count > 0 ? 1 : 0,
         NoteStray{k.index.as<int32_t>(), count, k.n, static_cast<uint64_t>(k.asker), refusals(k.index.device)});
}

}  // namespace tandem
