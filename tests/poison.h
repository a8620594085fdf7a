// A launch observer that fills every output of a kernel with garbage before the kernel runs, and notices a
// kernel that writes an operand which it may only read.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "tandem/core/dispatch.h"

namespace tandem::test {

class PoisonOutputs : public LaunchObserver {
 public:
  PoisonOutputs() : before_(set_launch_observer(this)) {}
  ~PoisonOutputs() override { set_launch_observer(before_); }

  void call(const char* kernel) override {
    compare_inputs();
    kernel_ = kernel;
  }

  void operand(const View& view, Use use) override {
    const size_t size = static_cast<size_t>(view.dims.numel() * size_of(view.dtype));
    if (use == Use::in || use == Use::rows_in) {
      const auto* begin = view.as<uint8_t>();
      inputs_.push_back({begin, {begin, begin + size}});
    } else if (use != Use::inout) {
      fill(view, size);
    }
  }

  // The first kernel seen so far that changed an input, or "".
  std::string changed_input() {
    compare_inputs();
    return changed_;
  }

 private:
  struct Input {
    const uint8_t* data;
    std::vector<uint8_t> before;
  };

  static void fill(const View& view, size_t size) {
    if (view.dtype == Dtype::float32)
      std::fill_n(view.as<float>(), view.dims.numel(), std::nanf(""));
    else if (view.dtype == Dtype::float64)
      std::fill_n(view.as<double>(), view.dims.numel(), std::nan(""));
    else
      std::memset(view.data, 0x5a, size);
  }

  // The blocks of the last call's inputs: alive, or free in the pool and not yet written by anyone else.
  void compare_inputs() {
    for (const Input& input : inputs_) {
      if (changed_.empty() && !input.before.empty() &&
          std::memcmp(input.data, input.before.data(), input.before.size()) != 0)
        changed_ = kernel_;
    }
    inputs_.clear();
  }

  LaunchObserver* before_;
  const char* kernel_ = "";
  std::vector<Input> inputs_;
  std::string changed_;
};

}  // namespace tandem::test
