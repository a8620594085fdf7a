// Prefetcher: makes the items 0 .. count-1 in order on a thread of its own, one ahead of the reader.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

namespace tandem {

template <class Item>
class Prefetcher {
 public:
  Prefetcher(int64_t count, std::function<Item(int64_t)> make)
      : make_(std::move(make)), thread_([this, count] { run(count); }) {}

  // Waits for the item in the making, drops it and ends.
  ~Prefetcher() {
    {
      std::lock_guard lock(mutex_);
      stop_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }
  Prefetcher(const Prefetcher&) = delete;
  Prefetcher& operator=(const Prefetcher&) = delete;

  int64_t next() const { return next_; }  // the item that take() returns

  // Item next(); may be called `count` times. Throws what make() threw for it.
  Item take() {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return item_ || error_; });
    if (!item_) std::rethrow_exception(error_);
    Item item = std::move(*item_);
    item_.reset();
    ++next_;
    lock.unlock();
    changed_.notify_all();
    return item;
  }

 private:
  void run(int64_t count) {
    for (int64_t i = 0; i < count; ++i) {
      std::optional<Item> item;
      std::exception_ptr error;
      try {
        item = make_(i);
      } catch (...) {
        error = std::current_exception();
      }
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stop_ || !item_; });
      if (stop_) return;
      item_ = std::move(item);
      error_ = error;
      changed_.notify_all();
      if (error) return;
    }
  }

  const std::function<Item(int64_t)> make_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<Item> item_;
  std::exception_ptr error_;
  bool stop_ = false;
  int64_t next_ = 0;    // touched by the reader alone
  std::thread thread_;  // last: it uses all of the above
};

}  // namespace tandem
