// Seconds that have passed.
#pragma once

#include <chrono>

namespace tandem {

using Clock = std::chrono::steady_clock;
inline double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Since the system started this process, libraries loaded and all, up to 0.01 too much; without /proc since these were
// loaded.
double seconds_since_process_start();

}  // namespace tandem
