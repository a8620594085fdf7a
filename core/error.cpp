#include "tandem/core/error.h"

#include <mutex>
#include <utility>

namespace tandem {
namespace {
std::mutex mutex;
WarningHandler& handler() {
  static WarningHandler* the_handler = new WarningHandler;  // outlives every static destructor
  return *the_handler;
}
}  // namespace

WarningHandler set_warning_handler(WarningHandler replacement) {
  std::lock_guard lock(mutex);
  return std::exchange(handler(), std::move(replacement));
}

void warn(const std::string& sentence) {
  const WarningHandler current = [] {  // called without the lock: it may warn, or set another
    std::lock_guard lock(mutex);
    return handler();
  }();
  if (current) current(sentence);
}

}  // namespace tandem
