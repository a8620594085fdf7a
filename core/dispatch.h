// launch: the only door to a kernel, and the only place that knows which backends were built.
#pragma once

#include "tandem/core/kernels.h"

namespace tandem {

// Sees every kernel call of this thread just before it runs; for tests and tools. Null by default.
// `operands` receives each operand of the call with its use.
struct LaunchObserver {
  virtual ~LaunchObserver() = default;
  virtual void call(const char* kernel) = 0;
  virtual void operand(const View& view, Use use) = 0;
};
LaunchObserver* set_launch_observer(LaunchObserver* observer);  // returns the one before
extern constinit thread_local LaunchObserver* launch_observer;

// Throws DeviceError: this build has no CUDA backend.
[[noreturn]] void no_cuda_backend();

namespace detail {
template <Use U>
Device device_of(const Operand<U>& operand) {
  return operand.device;
}
template <class K>
void observe(const K& k) {
  launch_observer->call(K::name);
  std::apply(
      [](const auto&... field) {
        auto one = [](const auto& f) {
          if constexpr (requires { f.use; }) {
            if (f.data) launch_observer->operand(f, f.use);
          }
        };
        (one(field), ...);
      },
      k.fields());
}
}  // namespace detail

// Notes the call where this thread records a step (recorder.h), and runs it otherwise.
extern constinit thread_local class Recorder* recorder;
#define TANDEM_DECLARE(K) void record_call(const K&);
TANDEM_KERNELS(TANDEM_DECLARE)
#undef TANDEM_DECLARE

template <class K>
void launch(const K& k) {
  if (recorder) [[unlikely]] return record_call(k);
  if (launch_observer) [[unlikely]] detail::observe(k);
  if (detail::device_of(std::get<0>(k.fields())).kind == Device::Kind::cuda) {
#if TANDEM_CUDA
    run(Cuda{}, k);
#else
    no_cuda_backend();
#endif
  } else {
    run(Cpu{}, k);
  }
}

}  // namespace tandem
