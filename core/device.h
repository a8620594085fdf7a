// Where a tensor lives, and the tags that select a backend's kernels.
#pragma once

#include <cstdint>
#include <string>

namespace tandem {

struct Cpu {};
struct Cuda {};

// "cpu", or "cuda:0" for the first NVIDIA GPU.
struct Device {
  enum class Kind : uint8_t { cpu, cuda } kind = Kind::cpu;
  int8_t index = 0;

  static Device cpu() { return {}; }
  static Device cuda(int index = 0) { return {Kind::cuda, static_cast<int8_t>(index)}; }
  // "cpu", "cuda" or "cuda:I". Throws ValueError for anything else.
  static Device parse(const std::string& text);
  bool operator==(const Device&) const = default;
};

std::string to_string(Device device);

// Throws DeviceError, with the reason and the way out, when `device` cannot be used here.
void require_device(Device device);

}  // namespace tandem
