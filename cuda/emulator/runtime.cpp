#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

using Work = std::function<void()>;

struct EmulatedGraph {
  std::shared_ptr<std::vector<Work>> work = std::make_shared<std::vector<Work>>();
};

struct EmulatedStream {
  std::deque<Work> work;
  int64_t done = 0;  // pieces of work
  std::unique_ptr<EmulatedGraph> capture;
  bool capture_spoiled = false;
};

struct EmulatedEvent {
  EmulatedStream* stream = nullptr;
  int64_t after = 0;  // so many pieces of its work
};

namespace {

using emulator::fault;

// Device addresses. No processor takes one, and no small numbers, nor pairs of them, that kernels are given look like
// it.
constexpr uintptr_t kRegionBegin = 0xd0c0'b05a'8000'0000;
constexpr size_t kRegion = size_t{2} << 30, kAlignment = 256;

int64_t environment(const char* name, int64_t otherwise) {
  const char* text = std::getenv(name);
  return text && *text ? std::atoll(text) : otherwise;
}

// All of the emulated GPUs. One thread at a time is in here.
struct Machine {
  std::recursive_mutex mutex;
  std::vector<std::unique_ptr<EmulatedStream>> streams;
  char* const region = reinterpret_cast<char*>(kRegionBegin);
  char* memory_of_region = nullptr;  // where its contents are
  std::map<size_t, size_t> blocks;   // offset to bytes
  size_t in_use = 0;
  std::set<void*> pinned;
  int64_t calls_left = environment("TANDEM_EMULATED_FAULT_AFTER", -1);  // < 0: nothing fails
  cudaError_t error = static_cast<cudaError_t>(environment("TANDEM_EMULATED_FAULT", cudaErrorLaunchFailure));
  const int gpus = static_cast<int>(environment("TANDEM_EMULATED_GPUS", 1));
  const size_t memory = static_cast<size_t>(environment("TANDEM_EMULATED_MIB", kRegion >> 20)) << 20;

  bool on_device(const void* p) const { return p >= region && p < region + kRegion; }
};
Machine& machine() {
  static Machine* the_machine = new Machine;
  return *the_machine;
}
thread_local EmulatedStream* capturing = nullptr;
thread_local cudaError_t last_error = cudaSuccess;

using Lock = std::lock_guard<std::recursive_mutex>;

void run_until(EmulatedStream& stream, int64_t end) {
  while (!stream.work.empty() && stream.done < end) {
    const Work next = std::move(stream.work.front());
    stream.work.pop_front();
    ++stream.done;
    next();
  }
}
void run_all(EmulatedStream& stream) { run_until(stream, INT64_MAX); }

// Every call of the runtime begins here.
cudaError_t begin() {
  Machine& m = machine();
  if (m.calls_left < 0) return cudaSuccess;
  if (m.calls_left-- > 0) return cudaSuccess;
  m.calls_left = m.error == cudaErrorMemoryAllocation ? -1 : 0;  // a broken device stays so
  return last_error = m.error;
}
#define BEGIN()                     \
  const Lock lock(machine().mutex); \
  if (const cudaError_t e = begin(); e != cudaSuccess) return e

// What a thread may not do while it captures.
#define NOT_WHILE_CAPTURING()                              \
  if (capturing) {                                         \
    capturing->capture_spoiled = true;                     \
    return last_error = cudaErrorStreamCaptureUnsupported; \
  }

void add(EmulatedStream& stream, Work work) {
  if (stream.capture) {
    stream.capture->work->push_back(std::move(work));
    return;
  }
  stream.work.push_back(std::move(work));
  if (stream.work.size() > 20000) run_all(stream);
}

}  // namespace

void* emulator::contents(const void* address) {
  const Machine& m = machine();
  char* p = static_cast<char*>(const_cast<void*>(address));
  return m.on_device(p) ? m.memory_of_region + (p - m.region) : p;
}
void emulator::translate(void* arguments, size_t bytes) {
  char* begin = static_cast<char*>(arguments);
  for (size_t at = 0; at + sizeof(void*) <= bytes; at += sizeof(void*)) {
    void* word = nullptr;
    std::memcpy(&word, begin + at, sizeof(word));
    word = contents(word);
    std::memcpy(begin + at, &word, sizeof(word));
  }
}
void emulator::queue(cudaStream_t stream, Work work) {
  const Lock lock(machine().mutex);
  if (begin() == cudaSuccess) add(*stream, std::move(work));
}
void emulator::fail_after(int calls, cudaError_t error) {
  const Lock lock(machine().mutex);
  machine().calls_left = calls;
  machine().error = error;
  if (calls < 0) last_error = cudaSuccess;
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaSuccess:
      return "cudaSuccess";
    case cudaErrorInvalidValue:
      return "cudaErrorInvalidValue";
    case cudaErrorMemoryAllocation:
      return "cudaErrorMemoryAllocation";
    case cudaErrorInsufficientDriver:
      return "cudaErrorInsufficientDriver";
    case cudaErrorNoDevice:
      return "cudaErrorNoDevice";
    case cudaErrorInvalidDevice:
      return "cudaErrorInvalidDevice";
    case cudaErrorIllegalAddress:
      return "cudaErrorIllegalAddress";
    case cudaErrorLaunchFailure:
      return "cudaErrorLaunchFailure";
    case cudaErrorStreamCaptureUnsupported:
      return "cudaErrorStreamCaptureUnsupported";
    case cudaErrorStreamCaptureInvalidated:
      return "cudaErrorStreamCaptureInvalidated";
  }
  return "?";
}
const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorMemoryAllocation:
      return "out of memory";
    case cudaErrorNoDevice:
      return "no CUDA-capable device is detected";
    case cudaErrorLaunchFailure:
      return "unspecified launch failure";
    case cudaErrorIllegalAddress:
      return "an illegal memory access was encountered";
    case cudaErrorStreamCaptureUnsupported:
      return "operation not permitted when stream is capturing";
    default:
      return "emulated error";
  }
}
cudaError_t cudaGetLastError() {
  const Lock lock(machine().mutex);
  return std::exchange(last_error, cudaSuccess);
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = machine().gpus;
  return machine().gpus > 0 ? cudaSuccess : cudaErrorNoDevice;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int) {
  *properties = {"emulated GPU", machine().memory, 9, 0, 8};
  return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}
cudaError_t cudaRuntimeGetVersion(int* version) { return cudaDriverGetVersion(version); }
cudaError_t cudaSetDevice(int device) { return device < machine().gpus ? cudaSuccess : cudaErrorInvalidDevice; }

cudaError_t cudaDeviceSynchronize() {
  BEGIN();
  NOT_WHILE_CAPTURING();
  for (const auto& stream : machine().streams) run_all(*stream);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  BEGIN();
  NOT_WHILE_CAPTURING();
  Machine& m = machine();
  bytes = (std::max<size_t>(bytes, 1) + kAlignment - 1) / kAlignment * kAlignment;
  if (m.in_use + bytes > m.memory) return last_error = cudaErrorMemoryAllocation;
  if (!m.memory_of_region) {
    void* contents = mmap(nullptr, kRegion, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (contents == MAP_FAILED) fault("no address space for device memory");
    m.memory_of_region = static_cast<char*>(contents);
  }
  size_t offset = 0;
  for (const auto& [begin, size] : m.blocks) {
    if (begin >= offset + bytes) break;
    offset = begin + size;
  }
  if (offset + bytes > kRegion) return last_error = cudaErrorMemoryAllocation;
  m.blocks[offset] = bytes;
  m.in_use += bytes;
  *memory = m.region + offset;
  std::memset(emulator::contents(*memory), 0xff, bytes);  // NaN
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  BEGIN();
  NOT_WHILE_CAPTURING();
  if (!memory) return cudaSuccess;
  for (const auto& stream : machine().streams) run_all(*stream);  // cudaFree waits for the device
  const auto block = machine().blocks.find(static_cast<size_t>(static_cast<char*>(memory) - machine().region));
  if (block == machine().blocks.end()) fault("cudaFree of what cudaMalloc did not give");
  machine().in_use -= block->second;
  machine().blocks.erase(block);
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  BEGIN();
  NOT_WHILE_CAPTURING();
  *memory = std::aligned_alloc(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);
  machine().pinned.insert(*memory);
  return cudaSuccess;
}
cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned) {
  BEGIN();
  *device = host;
  return cudaSuccess;
}

cudaError_t cudaFreeHost(void* memory) {
  BEGIN();
  if (machine().pinned.erase(memory) == 0) fault("cudaFreeHost of what cudaHostAlloc did not give");
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  BEGIN();
  *event = new EmulatedEvent;
  return cudaSuccess;
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  BEGIN();
  NOT_WHILE_CAPTURING();
  *event = {stream, stream->done + static_cast<int64_t>(stream->work.size())};
  return cudaSuccess;
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  BEGIN();
  NOT_WHILE_CAPTURING();
  if (event->stream) run_until(*event->stream, event->after);
  return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  BEGIN();
  machine().streams.push_back(std::make_unique<EmulatedStream>());
  *stream = machine().streams.back().get();
  return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  BEGIN();
  NOT_WHILE_CAPTURING();
  run_all(*stream);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  BEGIN();
  Machine& m = machine();
  if (m.on_device(to) != (kind != cudaMemcpyDeviceToHost) || m.on_device(from) != (kind != cudaMemcpyHostToDevice))
    fault("cudaMemcpyAsync: a pointer is not where the kind of copy says");
  to = emulator::contents(to);
  from = emulator::contents(from);
  if (kind == cudaMemcpyHostToDevice) {  // staged: the source may change at once
    const char* begin = static_cast<const char*>(from);
    const auto staged = std::make_shared<std::vector<char>>(begin, begin + bytes);
    add(*stream, [=] { std::memcpy(to, staged->data(), bytes); });
    return cudaSuccess;
  }
  add(*stream, [=] { std::memcpy(to, from, bytes); });
  if (kind == cudaMemcpyDeviceToHost && m.pinned.count(to) == 0) {  // waits
    NOT_WHILE_CAPTURING();
    run_all(*stream);
  }
  return cudaSuccess;
}
cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}
cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  BEGIN();
  if (!machine().on_device(to)) fault("cudaMemsetAsync: the pointer is not one of the device");
  add(*stream, [=, to = emulator::contents(to)] { std::memset(to, value, bytes); });
  return cudaSuccess;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  BEGIN();
  NOT_WHILE_CAPTURING();
  stream->capture = std::make_unique<EmulatedGraph>();
  stream->capture_spoiled = false;
  capturing = stream;
  return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  capturing = nullptr;
  std::unique_ptr<EmulatedGraph> captured = std::move(stream->capture);
  BEGIN();
  if (!stream->capture_spoiled) {
    *graph = captured.release();
    return cudaSuccess;
  }
  return last_error = cudaErrorStreamCaptureInvalidated;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  BEGIN();
  *executable = new EmulatedGraph(*graph);
  return cudaSuccess;
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  BEGIN();
  NOT_WHILE_CAPTURING();
  add(*stream, [work = executable->work] {
    for (const Work& w : *work) w();
  });
  return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}
