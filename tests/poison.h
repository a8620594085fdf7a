// A launch observer that fills every output of a kernel with garbage before the kernel runs, and notices a
// kernel that writes an operand which it may only read.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "tandem/core/cuda.h"
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
      inputs_.push_back({view, bytes_of(view, size)});
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
    View view;
    std::vector<uint8_t> before;
  };

  static bool on_gpu(const View& view) { return view.device.kind == Device::Kind::cuda; }
  static std::vector<uint8_t> bytes_of(const View& view, size_t size) {
    std::vector<uint8_t> bytes(size);
    if (on_gpu(view)) {
      cuda::copy(bytes.data(), {}, view.data, view.device, size);
    } else if (size > 0) {
      std::memcpy(bytes.data(), view.data, size);
    }
    return bytes;
  }

  static void fill(const View& view, size_t size) {
    if (on_gpu(view))
      cuda::fill_bytes(view.data, view.device, is_floating(view.dtype) ? 0xff : 0x5a, size);
    else if (view.dtype == Dtype::float32)
      std::fill_n(view.as<float>(), view.dims.numel(), std::nanf(""));
    else if (view.dtype == Dtype::float64)
      std::fill_n(view.as<double>(), view.dims.numel(), std::nan(""));
    else
      std::memset(view.data, 0x5a, size);
  }

  // The blocks of the last call's inputs: alive, or free in the pool and not yet written by anyone else.
  void compare_inputs() {
    for (const Input& input : inputs_) {
      if (changed_.empty() && bytes_of(input.view, input.before.size()) != input.before) changed_ = kernel_;
    }
    inputs_.clear();
  }

  LaunchObserver* before_;
  const char* kernel_ = "";
  std::vector<Input> inputs_;
  std::string changed_;
};

}  // namespace tandem::test
