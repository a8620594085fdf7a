#include "tandem/core/memory_pool.h"

#include <algorithm>
#include <bit>

namespace tandem {
namespace {

// Four classes per power of two: at most a fifth of a block is unused.
size_t size_class(size_t bytes) {
  if (bytes <= 256) return 256;
  const size_t step = std::max<size_t>(std::bit_floor(bytes - 1) / 4, 64);
  return (bytes + step - 1) / step * step;
}

}  // namespace

void* MemoryPool::take(size_t bytes) {
  const size_t size = size_class(bytes);
  Class& c = classes_[size];
  void* block = nullptr;
  if (!c.free.empty()) {
    block = c.free.back();
    c.free.pop_back();
    stats_.bytes_cached -= size;
  } else {
    if (c.made >= c.free.capacity()) c.free.reserve(2 * c.made + 8);
    block = system_take_(size);
    if (!block) {
      release_cached();
      block = system_take_(size);
    }
    if (!block) return nullptr;
    ++c.made;
    ++stats_.system_allocations;
  }
  stats_.bytes_in_use += size;
  stats_.bytes_peak = std::max(stats_.bytes_peak, stats_.bytes_in_use);
  return block;
}

void MemoryPool::give_back(void* block, size_t bytes) noexcept {
  const size_t size = size_class(bytes);
  classes_.find(size)->second.free.push_back(block);
  stats_.bytes_in_use -= size;
  stats_.bytes_cached += size;
}

void MemoryPool::release_cached() {
  for (auto& [size, c] : classes_) {
    for (void* block : c.free) system_give_(block);
    stats_.bytes_cached -= size * c.free.size();
    c.made -= c.free.size();
    c.free.clear();
  }
}

}  // namespace tandem
