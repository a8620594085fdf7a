#include "tandem/core/threads.h"

#include <fmt/format.h>
#include <immintrin.h>
#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <climits>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>

#include "tandem/core/error.h"
#include "tandem/core/parallel.h"

namespace tandem {
namespace {

std::atomic<int> threads_wanted{0};  // 0: as many as cores
thread_local bool single_threaded = false;
thread_local bool inside_parallel_for = false;

using Body = void (*)(const void*, int64_t);

// Calls `done` until it is true or about 30 us have passed: a sleeping thread takes longer than that to wake.
template <class F>
bool spin_until(const F& done) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(30);
  do {
    for (int i = 0; i < 32; ++i) {
      if (done()) return true;
      _mm_pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return done();
}

// Threads that help with one job at a time. A job is open from run() until its last item has been taken; only
// workers that joined it in that time are waited for, so a worker that wakes late holds nobody up.
class Pool {
 public:
  // False, and nothing done, when the pool is at work for another thread.
  bool run(int64_t n, int helpers, Body body, const void* context) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    const Busy until_the_end{busy_};
    grow(helpers);
    {
      std::lock_guard lock(mutex_);
      n_ = n, body_ = body, context_ = context, error_ = nullptr;
      next_.store(0, std::memory_order_relaxed);
      seats_ = helpers;
      epoch_.fetch_add(1, std::memory_order_release);
    }
    if (sleepers_.load(std::memory_order_seq_cst) > 0) wake_.notify_all();
    work();
    {
      std::unique_lock lock(mutex_);
      seats_ = 0;
      if (joined_ > 0) {
        lock.unlock();
        spin_until([&] { return joined_.load(std::memory_order_acquire) == 0; });
        lock.lock();
        finished_.wait(lock, [&] { return joined_ == 0; });
      }
    }
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    return true;
  }

 private:
  struct Busy {
    std::atomic<bool>& flag;
    ~Busy() { flag.store(false, std::memory_order_release); }
  };

  void grow(int helpers) {
    try {
      for (; workers_ < helpers && !exhausted_; ++workers_) std::thread([this] { serve(); }).detach();
    } catch (const std::exception& e) {  // results do not depend on how many there are
      exhausted_ = true;
      warn(fmt::format("threads: could start {} of {} helpers ({}); going on with those", workers_, helpers, e.what()));
    }
  }

  void serve() {
    inside_parallel_for = true;
    for (uint64_t seen = 0;;) {
      auto changed = [&] { return epoch_.load(std::memory_order_acquire) != seen; };
      if (!spin_until(changed)) {
        std::unique_lock lock(mutex_);
        sleepers_.fetch_add(1, std::memory_order_seq_cst);
        wake_.wait(lock, changed);
        sleepers_.fetch_sub(1, std::memory_order_seq_cst);
      }
      {
        std::lock_guard lock(mutex_);
        seen = epoch_.load(std::memory_order_relaxed);
        if (seats_ == 0) continue;
        --seats_;
        joined_.fetch_add(1, std::memory_order_relaxed);
      }
      work();
      std::lock_guard lock(mutex_);
      if (joined_.fetch_sub(1, std::memory_order_release) == 1) finished_.notify_one();
    }
  }

  // Takes items until none are left.
  void work() {
    const bool before = std::exchange(inside_parallel_for, true);
    for (int64_t i; (i = next_.fetch_add(1, std::memory_order_relaxed)) < n_;) {
      try {
        body_(context_, i);
      } catch (...) {
        next_.store(n_, std::memory_order_relaxed);
        std::lock_guard lock(mutex_);
        if (!error_) error_ = std::current_exception();
      }
    }
    inside_parallel_for = before;
  }

  std::atomic<bool> busy_{false};
  int workers_ = 0;  // touched only while busy
  bool exhausted_ = false;  // no more can be started; asked once, not at every launch

  std::mutex mutex_;
  std::condition_variable wake_, finished_;
  std::atomic<uint64_t> epoch_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<int> joined_{0};
  int seats_ = 0;  // workers that may still join

  int64_t n_ = 0;
  Body body_ = nullptr;
  const void* context_ = nullptr;
  std::exception_ptr error_;
  alignas(64) std::atomic<int64_t> next_{0};
};

// Never destroyed: its threads may outlive every static object.
Pool& pool() {
  static Pool& pool = *new Pool;
  return pool;
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};
struct Scratch {
  std::unique_ptr<void, Free> data;
  size_t bytes = 0;

  void* at_least(size_t wanted) {
    if (wanted > bytes) {
      bytes = 0;
      data.reset();
      const size_t rounded = (wanted + 4095) / 4096 * 4096;
      data.reset(std::aligned_alloc(64, rounded));
      if (!data) throw OutOfMemory(fmt::format("scratch: no memory for {} bytes", rounded));
      bytes = rounded;
    }
    return data.get();
  }
};
thread_local Scratch this_threads_scratch, this_threads_shared_scratch;

}  // namespace

int cores_of_quota(const char* cpu_max) {
  long long quota, period;
  const bool limited = std::sscanf(cpu_max, "%lld %lld", &quota, &period) == 2 && quota > 0 && period > 0;
  return limited ? static_cast<int>(std::min<long long>((quota - 1) / period + 1, INT_MAX)) : INT_MAX;
}

int available_cores() {
  std::string cpu_max;
  std::getline(std::ifstream("/sys/fs/cgroup/cpu.max"), cpu_max);
  cpu_set_t set;
  const bool known = sched_getaffinity(0, sizeof set, &set) == 0;  // not with more than 1024 of them
  const int cores = known ? CPU_COUNT(&set) : static_cast<int>(std::thread::hardware_concurrency());
  return std::clamp(cores, 1, cores_of_quota(cpu_max.c_str()));
}

void set_threads(int n) {
  if (n < 1) throw ValueError(fmt::format("set_threads: expected at least 1 thread, got {}", n));
  threads_wanted.store(n, std::memory_order_relaxed);
}

int threads() {
  int n = threads_wanted.load(std::memory_order_relaxed);
  if (n == 0) {
    n = available_cores();
    int unset = 0;
    if (!threads_wanted.compare_exchange_strong(unset, n, std::memory_order_relaxed)) n = unset;
  }
  return n;
}

SingleThreaded::SingleThreaded() : before_(std::exchange(single_threaded, true)) {}
SingleThreaded::~SingleThreaded() { single_threaded = before_; }

int parallel_width() { return single_threaded || inside_parallel_for ? 1 : threads(); }

void parallel_for(int64_t n, Body body, const void* context) {
  if (n > 1 && !single_threaded && !inside_parallel_for) {
    const int64_t helpers = std::min<int64_t>(threads(), n) - 1;
    if (helpers > 0 && pool().run(n, static_cast<int>(helpers), body, context)) return;
  }
  for (int64_t i = 0; i < n; ++i) body(context, i);
}

void* scratch_bytes(size_t bytes) { return this_threads_scratch.at_least(bytes); }
void* shared_scratch_bytes(size_t bytes) { return this_threads_shared_scratch.at_least(bytes); }

}  // namespace tandem
