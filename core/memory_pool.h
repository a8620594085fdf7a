// A pool of freed blocks by size class, so that a training loop asks the system for nothing. Internal; storage.h is the
// public half.
#pragma once

#include <cstddef>
#include <unordered_map>
#include <vector>

#include "tandem/core/storage.h"

namespace tandem {

// Not synchronised. `stats` may be shared by pools.
class MemoryPool {
 public:
  // `system_take` returns null if there is no memory.
  MemoryPool(void* (*system_take)(size_t), void (*system_give)(void*), MemoryStats& stats)
      : system_take_(system_take), system_give_(system_give), stats_(stats) {}

  void* take(size_t bytes);                            // null if there is no memory, even after release_cached()
  void give_back(void* block, size_t bytes) noexcept;  // of take(bytes)
  void release_cached();

 private:
  struct Class {
    std::vector<void*> free;  // has room for every block made: giving one back cannot fail
    size_t made = 0;
  };
  void* (*system_take_)(size_t);
  void (*system_give_)(void*);
  MemoryStats& stats_;
  std::unordered_map<size_t, Class> classes_;
};

}  // namespace tandem
