// How near the kernels come to what one core can do: each through its public op, beside the FMA peak measured around
// it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace tandem {

// Medians and extremes over the rounds.
struct Spread {
  double median = 0, low = 0, high = 0;
};

struct KernelRow {
  std::string kernel;  // "w3 conv2 dw"
  std::string shape;
  std::string unit;  // GF/s, GB/s or us
  Spread rate;       // in that unit
  Spread of_peak{};  // GF/s alone: share of the peak just before and after, 1 = all of it; else 0
};

struct KernelReport {
  Spread peak;  // float32 GF/s of one core: independent FMAs on registers
  std::vector<KernelRow> rows;
  int64_t rounds = 0;
};

// One core, for about `seconds`, at least one round of all kernels. A round runs each of them for a few milliseconds
// with the peak in between, so that a drifting clock cancels. Times are the thread's own CPU time.
// Convolutions count the products of the definition, whatever the algorithm; batch norms the tensors read or written
// once each: x and y forward, x, dy and dx backward.
KernelReport bench_kernels(double seconds);

}  // namespace tandem
