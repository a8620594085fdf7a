#include "tandem/core/dispatch.h"

#include <utility>

#include "tandem/core/error.h"

namespace tandem {

constinit thread_local LaunchObserver* launch_observer = nullptr;

LaunchObserver* set_launch_observer(LaunchObserver* observer) {
  return std::exchange(launch_observer, observer);
}

void no_cuda_backend() {
  throw DeviceError("cuda: this build has no CUDA backend; use the device cpu");
}

}  // namespace tandem
