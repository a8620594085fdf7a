#include "signals.h"

#include <signal.h>
#include <unistd.h>

namespace tandem {

namespace {
volatile sig_atomic_t caught = 0;
struct sigaction before_int, before_term;

extern "C" void on_signal(int signal) {
  if (caught != 0) _exit(128 + signal);
  caught = signal;
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
