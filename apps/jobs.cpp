#include "jobs.h"

#include <algorithm>
#include <exception>
#include <mutex>
#include <optional>
#include <system_error>
#include <thread>
#include <vector>

#include "tandem/core/threads.h"

namespace tandem {

void run_jobs(int n, int at_once, std::atomic<bool>& stop, const std::function<void(int)>& f) {
  std::atomic<int> next{0};
  std::exception_ptr error;
  std::mutex mutex;
  const auto work = [&] {
    std::optional<SingleThreaded> one_core;
    if (at_once > 1) one_core.emplace();
    try {
      for (int i = next++; i < n && !stop; i = next++) f(i);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      stop = true;
    }
  };
  {
    std::vector<std::jthread> others;
    try {
      for (int t = 1; t < std::min(at_once, n); ++t) others.emplace_back(work);
    } catch (const std::system_error&) {  // no more threads: this one does the rest
    }
    work();
  }
  if (error) std::rethrow_exception(error);
}

}  // namespace tandem
