#include <cxxabi.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tandem/core/cuda.h"
#include "tandem/core/error.h"
#include "tandem/core/memory_pool.h"
#include "tandem/cuda/block.h"
#include "tandem/cuda/runtime.h"

namespace tandem::cuda {
namespace {

constexpr int kMostDevices = 16;

// TANDEM_CUDA_POOL=off: each tensor is an allocation of its own, as compute-sanitizer's memcheck wants it.
bool pooled() {
  static const bool on = [] {
    const char* text = std::getenv("TANDEM_CUDA_POOL");
    return !text || std::strcmp(text, "off") != 0;
  }();
  return on;
}

std::string mebibytes(size_t bytes) { return std::to_string((bytes + 524288) / 1048576) + " MiB"; }

void* system_take(size_t bytes) {
  void* block = nullptr;
  const cudaError_t status = cudaMalloc(&block, bytes);
  if (status == cudaSuccess) return block;
  cudaGetLastError();  // the next call shall not report it
  if (status == cudaErrorMemoryAllocation) return nullptr;
  check(status, "cudaMalloc", __FILE__, __LINE__);
  return nullptr;
}
void system_give(void* block) { cudaFree(block); }

// A stream and what belongs to its work. One thread at a time has it; afterwards another may.
struct Stream {
  Stream(int device_, MemoryStats& stats) : device(device_), pool(system_take, system_give, stats) {
    TANDEM_CUDA(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking));
    void *memory = nullptr, *word = nullptr;
    TANDEM_CUDA(cudaMalloc(&memory, kCounters * sizeof(int)));
    TANDEM_CUDA(cudaMemsetAsync(memory, 0, kCounters * sizeof(int), handle));
    counters = static_cast<int*>(memory);
    TANDEM_CUDA(cudaHostAlloc(&word, sizeof(*refusal), cudaHostAllocMapped));
    refusal = static_cast<volatile unsigned long long*>(word);
    *refusal = 0;
    TANDEM_CUDA(cudaHostGetDevicePointer(&word, word, 0));
    refusal_on_device = static_cast<unsigned long long*>(word);
  }

  const int device;
  cudaStream_t handle = nullptr;
  MemoryPool pool;
  void* workspace = nullptr;
  size_t workspace_bytes = 0;  // grows; graphs may still use what it was before, so that is kept
  int* counters;
  volatile unsigned long long* refusal;
  unsigned long long* refusal_on_device;
};

// Of the process. Never destroyed: tensors in static storage give their memory back to it.
struct Runtime {
  std::mutex mutex;    // guards all of it
  std::mutex capture;  // held while a thread captures: others must not wait for the whole device then
  MemoryStats stats{};
  std::vector<std::unique_ptr<Stream>> streams;
  std::vector<Stream*> idle;
  std::unordered_map<const void*, Stream*> owners;  // of blocks
};
Runtime& runtime() {
  static Runtime* the_runtime = new Runtime;
  return *the_runtime;
}

// The streams of this thread.
struct ThreadStreams {
  Stream* of[kMostDevices] = {};
  int current = -1;

  ~ThreadStreams() {
    for (Stream* s : of) {
      if (!s) continue;
      cudaStreamSynchronize(s->handle);
      std::lock_guard lock(runtime().mutex);
      runtime().idle.push_back(s);
    }
  }
};
thread_local ThreadStreams thread_streams;

Stream* take_stream(int device) {
  Runtime& r = runtime();
  {
    std::lock_guard no_capture(r.capture);
    TANDEM_CUDA(cudaDeviceSynchronize());  // what other threads have queued for it comes first
  }
  std::lock_guard lock(r.mutex);
  for (Stream*& s : r.idle) {
    if (s->device != device) continue;
    std::swap(s, r.idle.back());
    Stream* taken = r.idle.back();
    r.idle.pop_back();
    *taken->refusal = 0;  // of the thread that had it
    return taken;
  }
  r.streams.push_back(std::make_unique<Stream>(device, r.stats));
  return r.streams.back().get();
}

Stream& own_stream(int device) {
  ThreadStreams& t = thread_streams;
  if (t.current != device) {
    TANDEM_CUDA(cudaSetDevice(device));
    t.current = device;
  }
  if (!t.of[device]) t.of[device] = take_stream(device);
  return *t.of[device];
}

void throw_refusal(Stream& s) {
  const unsigned long long word = *s.refusal;
  if (word == 0) return;
  *s.refusal = 0;
  throw ValueError(stray_index(static_cast<Asker>((word >> 62) - 1), static_cast<int64_t>(word >> 32 & 0x3fffffff),
                               static_cast<int32_t>(word)));
}

void wait(Stream& s) {
  TANDEM_CUDA(cudaStreamSynchronize(s.handle));
  throw_refusal(s);
}

// Few bytes of the host travel as arguments, for which nobody waits; a copy from its memory waits for the stream.
struct Write {
  static constexpr int threads = 256;
  static constexpr size_t kMost = 3072;
  unsigned char* to;
  int bytes;
  unsigned char from[kMost];
  TANDEM_DEVICE void operator()(const Block& block) const {
    for (int i = block.thread; i < bytes; i += threads) to[i] = from[i];
  }
};

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

Devices find_devices() {
  Devices found;
  int count = 0, driver = 0, toolkit = 0;
  cudaRuntimeGetVersion(&toolkit);
  cudaDriverGetVersion(&driver);  // 0 without one
  found.toolkit = version_text(toolkit);
  found.driver = driver > 0 ? version_text(driver) : "";
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();
    found.why_none = status == cudaSuccess ? "no device is visible to this process" : cudaGetErrorString(status);
    if (driver == 0) found.why_none += "; no NVIDIA driver is loaded";
    found.why_none += "; use the device cpu";
    return found;
  }
  for (int i = 0; i < count && i < kMostDevices; ++i) {
    cudaDeviceProp p;
    TANDEM_CUDA(cudaGetDeviceProperties(&p, i));
    found.all.push_back({p.name, p.major, p.minor, p.multiProcessorCount, static_cast<int64_t>(p.totalGlobalMem)});
  }
  return found;
}

void* take_unpooled(size_t bytes) {
  void* block = system_take(bytes);
  MemoryStats& stats = runtime().stats;
  stats.bytes_in_use += block ? bytes : 0;
  stats.bytes_peak = max(stats.bytes_peak, stats.bytes_in_use);
  return block;
}

}  // namespace

void check(cudaError_t status, const char* expression, const char* file, int line) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // else a later launch reports it once more
  const char* slash = std::strrchr(file, '/');
  const std::string text = std::string("cuda: ") + expression + " at " + (slash ? slash + 1 : file) + ":" +
                           std::to_string(line) + ": " + cudaGetErrorName(status) + " (" + cudaGetErrorString(status) +
                           ")";
  if (status == cudaErrorMemoryAllocation) throw OutOfMemory(text + "; use a smaller batch or model");
  throw DeviceError(text);
}

void check_launch(const std::type_info& kernel) {
  const cudaError_t status = cudaGetLastError();
  if (status == cudaSuccess) return;
  int failed = 0;
  const std::unique_ptr<char, void (*)(void*)> readable(abi::__cxa_demangle(kernel.name(), nullptr, nullptr, &failed),
                                                        std::free);
  std::string name = readable ? readable.get() : kernel.name();
  for (const std::string part : {"tandem::cuda::", "tandem::", "(anonymous namespace)::"}) {
    for (size_t at; (at = name.find(part)) != std::string::npos;) name.erase(at, part.size());
  }
  check(status, ("launch of " + name).c_str(), __FILE__, __LINE__);
}

const Devices& devices() {
  static const Devices found = find_devices();
  return found;
}

cudaStream_t stream(Device device) { return own_stream(device.index).handle; }
uint64_t stream_id(Device device) { return reinterpret_cast<uintptr_t>(stream(device)); }
int* counters(Device device) { return own_stream(device.index).counters; }
unsigned long long* refusals(Device device) { return own_stream(device.index).refusal_on_device; }

void* workspace_bytes(Device device, size_t bytes) {
  Stream& s = own_stream(device.index);
  if (bytes > s.workspace_bytes) {
    const size_t size = bytes < (size_t{8} << 20) ? size_t{8} << 20 : bytes + bytes / 2;
    s.workspace = allocate(size, device.index);
    s.workspace_bytes = size;
  }
  return s.workspace;
}

void* allocate(size_t bytes, int device) {
  Stream& s = own_stream(device);
  Runtime& r = runtime();
  std::lock_guard lock(r.mutex);
  void* block = pooled() ? s.pool.take(bytes) : take_unpooled(bytes);
  if (!block && pooled()) {  // the pools of other streams may have some
    for (const auto& other : r.streams) other->pool.release_cached();
    block = s.pool.take(bytes);
  }
  if (!block)
    throw OutOfMemory("cuda: " + mebibytes(bytes) + " for a tensor could not be had on cuda:" + std::to_string(device) +
                      " (" + mebibytes(r.stats.bytes_in_use) + " are in use); use a smaller batch or model");
  r.owners[block] = &s;
  return block;
}

void release(void* block, size_t bytes, int device) noexcept {
  Runtime& r = runtime();
  std::unique_lock no_capture(r.capture, std::defer_lock);
  if (!pooled()) no_capture.lock();
  std::unique_lock lock(r.mutex);
  const auto found = r.owners.find(block);
  Stream* owner = found->second;
  r.owners.erase(found);
  const Stream* mine = thread_streams.of[device];
  if (mine && mine != owner) cudaStreamSynchronize(mine->handle);  // its next user is another stream
  if (pooled()) return owner->pool.give_back(block, bytes);
  cudaStreamSynchronize(owner->handle);
  system_give(block);
  r.stats.bytes_in_use -= bytes;
}

MemoryStats memory_stats() {
  std::lock_guard lock(runtime().mutex);
  return runtime().stats;
}

void release_cached_memory() {
  Runtime& r = runtime();
  std::lock_guard no_capture(r.capture);
  std::lock_guard lock(r.mutex);
  for (const auto& s : r.streams) s->pool.release_cached();
}

void copy(void* to, Device to_device, const void* from, Device from_device, size_t bytes) {
  if (bytes == 0) return;
  if (from_device.kind == Device::Kind::cpu) {
    if (bytes > 8 * Write::kMost) {
      TANDEM_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, stream(to_device)));
      return;
    }
    for (size_t done = 0; done < bytes; done += Write::kMost) {
      Write write{static_cast<unsigned char*>(to) + done, static_cast<int>(min(bytes - done, Write::kMost)), {}};
      std::memcpy(write.from, static_cast<const char*>(from) + done, static_cast<size_t>(write.bytes));
      launch(to_device, 1, write);
    }
    return;
  }
  Stream& source = own_stream(from_device.index);
  if (to_device.kind == Device::Kind::cpu) {
    TANDEM_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, source.handle));
    return wait(source);
  }
  if (to_device == from_device) {
    TANDEM_CUDA(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, source.handle));
    return;
  }
  wait(own_stream(to_device.index));  // whoever had `to` before
  TANDEM_CUDA(cudaMemcpyPeerAsync(to, to_device.index, from, from_device.index, bytes, stream(from_device)));
  wait(source);
}

void fill_bytes(void* to, Device device, int value, size_t bytes) {
  TANDEM_CUDA(cudaMemsetAsync(to, value, bytes, stream(device)));
}

void synchronize(Device device) { wait(own_stream(device.index)); }

struct Snapshot::State {
  Device device;
  void* memory = nullptr;  // pinned: a copy to other memory would wait
  cudaEvent_t taken = nullptr;
  Stream* of = nullptr;  // of the last take()

  ~State() {
    if (of) cudaStreamSynchronize(of->handle);  // a copy may be on its way
    if (taken) cudaEventDestroy(taken);
    std::lock_guard no_capture(runtime().capture);
    if (memory) cudaFreeHost(memory);
  }
};

Snapshot::Snapshot(Device device, size_t bytes) : state_(new State{device}) {
  stream(device);
  std::lock_guard no_capture(runtime().capture);
  TANDEM_CUDA(cudaHostAlloc(&state_->memory, bytes, cudaHostAllocDefault));
  TANDEM_CUDA(cudaEventCreateWithFlags(&state_->taken, cudaEventDisableTiming));
}
Snapshot::~Snapshot() = default;

void Snapshot::take(const View& view) {
  state_->of = &own_stream(state_->device.index);
  const size_t bytes = static_cast<size_t>(view.dims.numel() * size_of(view.dtype));
  TANDEM_CUDA(cudaMemcpyAsync(state_->memory, view.data, bytes, cudaMemcpyDeviceToHost, state_->of->handle));
  TANDEM_CUDA(cudaEventRecord(state_->taken, state_->of->handle));
}

const void* Snapshot::wait() const {
  stream(state_->device);
  TANDEM_CUDA(cudaEventSynchronize(state_->taken));
  throw_refusal(*state_->of);
  return state_->memory;
}

struct Graph::State {
  Device device;
  cudaGraphExec_t executable = nullptr;
};

Graph::Graph(Device device, const std::function<void()>& calls) : state_(new State{device}) {
  std::lock_guard capturing(runtime().capture);
  const cudaStream_t s = stream(device);
  TANDEM_CUDA(cudaStreamBeginCapture(s, cudaStreamCaptureModeThreadLocal));
  cudaGraph_t graph = nullptr;
  try {
    calls();
  } catch (...) {
    cudaStreamEndCapture(s, &graph);
    if (graph) cudaGraphDestroy(graph);
    throw;
  }
  TANDEM_CUDA(cudaStreamEndCapture(s, &graph));
  const cudaError_t status = cudaGraphInstantiate(&state_->executable, graph, 0);
  cudaGraphDestroy(graph);
  TANDEM_CUDA(status);
}

Graph::~Graph() {
  if (state_->executable) cudaGraphExecDestroy(state_->executable);
}

void Graph::launch() const { TANDEM_CUDA(cudaGraphLaunch(state_->executable, stream(state_->device))); }

}  // namespace tandem::cuda
