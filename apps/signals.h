// SIGINT and SIGTERM: the first asks the program to finish what it does, the second ends it at once.
#pragma once

namespace tandem {

// While one lives, signals are caught; they are as before afterwards. At most one at a time.
class StopOnSignal {
 public:
  StopOnSignal();
  ~StopOnSignal();
  StopOnSignal(const StopOnSignal&) = delete;
  StopOnSignal& operator=(const StopOnSignal&) = delete;

  bool stopped() const { return signal() != 0; }
  int signal() const;  // the one that came, or 0
};

}  // namespace tandem
