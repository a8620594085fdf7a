#include "tandem/core/storage.h"

#include <fmt/format.h>

#include <cstdlib>
#include <mutex>

#include "tandem/core/cuda.h"
#include "tandem/core/error.h"
#include "tandem/core/memory_pool.h"
#include "tandem/core/recorder.h"

namespace tandem {
namespace {

struct HostMemory {
  std::mutex mutex;
  MemoryStats stats{};
  MemoryPool pool{[](size_t bytes) { return std::aligned_alloc(64, bytes); }, std::free, stats};
};

HostMemory& host_memory() {
  static HostMemory* the_memory = new HostMemory;  // outlives tensors in static storage
  return *the_memory;
}

void* take(size_t bytes, Device device) {
  if (device.kind == Device::Kind::cuda) return cuda::allocate(bytes, device.index);
  HostMemory& memory = host_memory();
  std::lock_guard lock(memory.mutex);
  void* block = memory.pool.take(bytes);
  if (!block)
    throw OutOfMemory(
        fmt::format("memory: {:.1f} MiB for a tensor could not be had ({:.1f} MiB are in use); "
                    "use a smaller batch or model",
                    bytes / 1048576.0, memory.stats.bytes_in_use / 1048576.0));
  return block;
}

}  // namespace

Storage::Storage(size_t n, Device where)
    : data((require_device(where), recorder ? recorder->allocate(n) : take(n, where))),
      bytes(n),
      device(where),
      recording(recorder ? recorder->id : 0) {}

Storage::~Storage() {
  if (recording != 0) return;
  if (device.kind == Device::Kind::cuda) {
    cuda::release(data, bytes, device.index);
  } else {
    std::lock_guard lock(host_memory().mutex);
    host_memory().pool.give_back(data, bytes);
  }
}

void Storage::take_memory() {
  data = take(bytes, device);
  recording = 0;
}

MemoryStats memory_stats(Device::Kind where) {
  if (where == Device::Kind::cuda) return cuda::memory_stats();
  std::lock_guard lock(host_memory().mutex);
  return host_memory().stats;
}

void release_cached_memory() {
  cuda::release_cached_memory();
  std::lock_guard lock(host_memory().mutex);
  host_memory().pool.release_cached();
}

}  // namespace tandem
