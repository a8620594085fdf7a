#include "tandem/core/dispatch.h"

#include <utility>

namespace tandem {

constinit thread_local LaunchObserver* launch_observer = nullptr;

LaunchObserver* set_launch_observer(LaunchObserver* observer) { return std::exchange(launch_observer, observer); }

}  // namespace tandem
