// launch: the only door to a kernel, and the only place that chooses between backends.
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

namespace detail {
inline bool on_cuda(const View& operand) { return operand.device.kind == Device::Kind::cuda; }
// Any operand says it: the first may be an option that is absent.
template <class K>
bool runs_on_cuda(const K& k) {
  const auto one = [](const auto& field) {
    if constexpr (requires { field.use; })
      return on_cuda(field);
    else if constexpr (requires { field.use_of_each; })
      return field.size() > 0 && on_cuda(field[0]);
    else
      return false;
  };
  return std::apply([&](const auto&... field) { return (one(field) || ...); }, k.fields());
}
template <class K>
void observe(const K& k) {
  launch_observer->call(K::name);
  std::apply(
      [](const auto&... field) {
        auto one = [](const auto& f) {
          if constexpr (requires { f.use; }) {
            if (f.data) launch_observer->operand(f, f.use);
          } else if constexpr (requires { f.use_of_each; }) {
            for (int64_t i = 0; i < f.size(); ++i) {
              if (f[i].data) launch_observer->operand(f[i], f.use_of_each);
            }
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

template <class K, class Backend>
concept RunsOn = requires(const K& k) {
  run(Backend{}, k);
};

template <class K>
void launch(const K& k) {
  if (recorder) [[unlikely]]
    return record_call(k);
  if (launch_observer) [[unlikely]]
    detail::observe(k);
  if constexpr (RunsOn<K, Cuda>) {
    if (detail::runs_on_cuda(k)) return run(Cuda{}, k);
  }
  if constexpr (RunsOn<K, Cpu>) run(Cpu{}, k);
}

}  // namespace tandem
