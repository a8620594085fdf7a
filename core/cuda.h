// What the library asks of NVIDIA GPUs besides kernels: which there are, memory, copies, waiting, graphs. cuda/
// implements it; in a build without CUDA core/no_cuda.cpp does, and says so.
//
// Work for a GPU is queued and done in order, for each host thread and GPU in a stream of its own. A thread's stream
// begins after all that other threads have queued by then, and is waited for when the thread ends. In between, a thread
// that takes over tensors of another has that one call synchronize() first.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "tandem/core/device.h"
#include "tandem/core/kernels.h"
#include "tandem/core/storage.h"

namespace tandem {

// The sentence for a value of an index outside [0, n).
std::string stray_index(Asker asker, int64_t n, int64_t value);

namespace cuda {

struct DeviceInfo {
  std::string name;  // "NVIDIA H200"
  int major, minor;  // compute capability
  int multiprocessors;
  int64_t bytes;  // of its memory
};
// Those that this process sees, in the order of their indices; empty, with the reason, if there is none.
struct Devices {
  std::vector<DeviceInfo> all;
  std::string why_none;         // "no CUDA-capable device is detected"
  std::string driver, toolkit;  // "13.0"; empty without CUDA
};
const Devices& devices();

// At least so many bytes, 256-byte aligned, from the pool of this thread's stream; written by work queued from here on.
// Throws OutOfMemory, DeviceError.
void* allocate(size_t bytes, int device);
// The block goes back to its pool once this thread's queued work is done with it.
void release(void* block, size_t bytes, int device) noexcept;
MemoryStats memory_stats();
void release_cached_memory();

// Copies bytes; one of the two or both are on a GPU. Waits where the host reads; otherwise the copy is queued, and
// `from` may change when it returns.
void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes);
void fill_bytes(void* to, Device device, int value, size_t bytes);

// Waits for what this thread has queued, then throws what went wrong meanwhile: DeviceError for the device, ValueError
// for a value that a kernel refused (CheckIndex).
void synchronize(Device device);

// A copy on the host of what a GPU holds when the work queued so far is done. Nobody waits for it before wait().
class Snapshot {
 public:
  Snapshot(Device device, size_t bytes);  // of at most so many
  ~Snapshot();
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;
  void take(const View& view);
  // The bytes of the last take(), until the next. Waits for them, not for what was queued later, and throws as
  // synchronize() does.
  const void* wait() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// This thread's stream of the device: another thread has another.
uint64_t stream_id(Device device);

// Calls recorded in one piece, which the driver then queues as one.
class Graph {
 public:
  // Captures what `calls` queues instead of queueing it; it must neither allocate nor wait.
  Graph(Device device, const std::function<void()>& calls);
  ~Graph();
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;
  void launch() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// How a float32 product is computed on a GPU by what this thread calls from here on, backward included.
// Math::fp32 unless set.
void set_math(Math math);
Math math();

}  // namespace cuda
}  // namespace tandem
