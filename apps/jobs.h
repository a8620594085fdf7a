// Independent pieces of work at once, each on one core.
#pragma once

#include <atomic>
#include <functional>

namespace tandem {

// Calls f(0) .. f(n - 1), `at_once` of them at a time, each on a thread whose kernels use one core; with 1 on this
// thread, with all cores. Fewer run at once where threads cannot be had. No new one starts once `stop` is set; an
// exception sets it, and the first is rethrown when all have ended.
void run_jobs(int n, int at_once, std::atomic<bool>& stop, const std::function<void(int)>& f);

}  // namespace tandem
