// How far a long job is: a bar with the time left on a terminal, a plain line every few seconds elsewhere.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

#include "clock.h"

namespace tandem {

// Thread-safe. Writes to stderr; nothing at all after set_quiet.
class Progress {
 public:
  // `total` steps of work; more may be done than that.
  explicit Progress(int64_t total);
  ~Progress();  // removes the bar
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` steps are behind us; `text` says how they went, "loss 0.0712".
  void update(int64_t done, const std::string& text);

 private:
  std::string bar(int64_t done, double left, const std::string& text) const;

  std::mutex mutex_;
  const int64_t total_;
  const bool terminal_;
  const Clock::time_point start_;
  Clock::time_point shown_;  // when the last line was
};

}  // namespace tandem
