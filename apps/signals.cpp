#include "signals.h"

#include <signal.h>
#include <unistd.h>

#include <atomic>

namespace tandem {

namespace {
std::atomic<int> caught{0};  // read by the threads that train
static_assert(std::atomic<int>::is_always_lock_free);
struct sigaction before_int, before_term;

extern "C" void on_signal(int signal) {
  if (caught.exchange(signal) != 0) _exit(128 + signal);
}
}  // namespace

StopOnSignal::StopOnSignal() {
  caught = 0;
  struct sigaction action {};
  action.sa_handler = on_signal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &before_int);
  sigaction(SIGTERM, &action, &before_term);
}

StopOnSignal::~StopOnSignal() {
  sigaction(SIGINT, &before_int, nullptr);
  sigaction(SIGTERM, &before_term, nullptr);
}

int StopOnSignal::signal() const { return caught; }

}  // namespace tandem
