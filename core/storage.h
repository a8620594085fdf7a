// Storage: reference-counted bytes behind one or more tensors, served from a pool.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

#include "tandem/core/device.h"

namespace tandem {

// Owns `bytes` bytes (64-byte aligned, uninitialised) on one device and returns them to the pool.
// `version` counts in-place changes, so that backward can refuse values changed since they were saved.
struct Storage {
  Storage(size_t bytes, Device device);  // throws OutOfMemory or DeviceError
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  // Memory for what was made without, while a step was recorded (recorder.h). Throws OutOfMemory.
  void take_memory();

  void* data;
  const size_t bytes;
  const Device device;
  uint64_t version = 0;
  uint64_t recording = 0;  // not 0: the recorder that made up `data`
};

// What the pool of host memory, or that of all GPUs, did since the program started. A training loop of fixed shapes
// stops moving `system_allocations` after its second step.
struct MemoryStats {
  uint64_t system_allocations;  // blocks asked of the operating system or driver
  uint64_t bytes_in_use;        // held by live tensors
  uint64_t bytes_peak;          // largest bytes_in_use so far
  uint64_t bytes_cached;        // held by the pool for reuse
};
MemoryStats memory_stats(Device::Kind where = Device::Kind::cpu);

// Gives the pools' unused memory back to the operating system and the drivers.
void release_cached_memory();

}  // namespace tandem
