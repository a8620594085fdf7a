// A pool of freed blocks by size class, so that a training loop asks the operating system for nothing.
#include "tandem/core/storage.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/core/recorder.h"

namespace tandem {
namespace {

// Four classes per power of two: at most a fifth of a block is unused.
size_t size_class(size_t bytes) {
  if (bytes <= 256) return 256;
  const size_t step = std::max<size_t>(std::bit_floor(bytes - 1) / 4, 64);
  return (bytes + step - 1) / step * step;
}

struct MemoryPool {
  std::mutex mutex;
  struct Class {
    std::vector<void*> free;  // has room for every block made: giving one back cannot fail
    size_t made = 0;
  };
  std::unordered_map<size_t, Class> classes;
  MemoryStats stats{};
};

MemoryPool& memory_pool() {
  static MemoryPool* the_pool = new MemoryPool;  // outlives tensors in static storage
  return *the_pool;
}

void release_locked(MemoryPool& p) {
  for (auto& [size, c] : p.classes) {
    for (void* block : c.free) std::free(block);
    c.made -= c.free.size();
    c.free.clear();
  }
  p.stats.bytes_cached = 0;
}

void* take(size_t bytes) {
  MemoryPool& p = memory_pool();
  std::lock_guard lock(p.mutex);
  const size_t size = size_class(bytes);
  MemoryPool::Class& c = p.classes[size];
  void* block = nullptr;
  if (!c.free.empty()) {
    block = c.free.back();
    c.free.pop_back();
    p.stats.bytes_cached -= size;
  } else {
    if (c.made >= c.free.capacity()) c.free.reserve(2 * c.made + 8);
    block = std::aligned_alloc(64, size);
    if (!block) {
      release_locked(p);
      block = std::aligned_alloc(64, size);
    }
    if (!block)
      throw OutOfMemory(
          fmt::format("memory: {:.1f} MiB for a tensor could not be had ({:.1f} MiB are in use); "
                      "use a smaller batch or model",
                      bytes / 1048576.0, p.stats.bytes_in_use / 1048576.0));
    ++c.made;
    ++p.stats.system_allocations;
  }
  p.stats.bytes_in_use += size;
  p.stats.bytes_peak = std::max(p.stats.bytes_peak, p.stats.bytes_in_use);
  return block;
}

void give_back(void* block, size_t bytes) {
  MemoryPool& p = memory_pool();
  std::lock_guard lock(p.mutex);
  const size_t size = size_class(bytes);
  p.classes.find(size)->second.free.push_back(block);
  p.stats.bytes_in_use -= size;
  p.stats.bytes_cached += size;
}

}  // namespace

Storage::Storage(size_t n, Device where)
    : data((require_device(where), recorder ? recorder->allocate(n) : take(n))),
      bytes(n),
      device(where),
      recording(recorder ? recorder->id : 0) {}

Storage::~Storage() {
  if (recording == 0) give_back(data, bytes);
}

void Storage::take_memory() {
  data = take(bytes);
  recording = 0;
}

MemoryStats memory_stats() {
  std::lock_guard lock(memory_pool().mutex);
  return memory_pool().stats;
}

void release_cached_memory() {
  std::lock_guard lock(memory_pool().mutex);
  release_locked(memory_pool());
}

}  // namespace tandem
