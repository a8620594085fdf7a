// The part of the CUDA runtime that the backend uses, done by the host: for the tests, where there is no GPU. Work is
// queued and runs when somebody waits for it, as late as a GPU might. A device address is not accessible: what lies
// there is elsewhere, and only kernels and copies are told where.
#pragma once

#include <cstddef>
#include <functional>

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchFailure = 719,
  cudaErrorStreamCaptureUnsupported = 900,
  cudaErrorStreamCaptureInvalidated = 901,
};
const char* cudaGetErrorName(cudaError_t);
const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaGetLastError();

struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  int major, minor, multiProcessorCount;
};
cudaError_t cudaGetDeviceCount(int*);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int);
cudaError_t cudaDriverGetVersion(int*);
cudaError_t cudaRuntimeGetVersion(int*);
cudaError_t cudaSetDevice(int);
cudaError_t cudaDeviceSynchronize();

cudaError_t cudaMalloc(void**, size_t);
cudaError_t cudaFree(void*);
constexpr unsigned cudaHostAllocDefault = 0, cudaHostAllocMapped = 2;
cudaError_t cudaHostAlloc(void**, size_t, unsigned);
cudaError_t cudaHostGetDevicePointer(void**, void*, unsigned);
cudaError_t cudaFreeHost(void*);

using cudaStream_t = struct EmulatedStream*;
constexpr unsigned cudaStreamNonBlocking = 1;
cudaError_t cudaStreamCreateWithFlags(cudaStream_t*, unsigned);
cudaError_t cudaStreamSynchronize(cudaStream_t);

using cudaEvent_t = struct EmulatedEvent*;
constexpr unsigned cudaEventDisableTiming = 2;
cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, unsigned);
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t);
cudaError_t cudaEventSynchronize(cudaEvent_t);
cudaError_t cudaEventDestroy(cudaEvent_t);

enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
cudaError_t cudaMemcpyAsync(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t);
cudaError_t cudaMemcpyPeerAsync(void*, int, const void*, int, size_t, cudaStream_t);
cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t);

using cudaGraph_t = struct EmulatedGraph*;
using cudaGraphExec_t = struct EmulatedGraph*;
enum cudaStreamCaptureMode { cudaStreamCaptureModeThreadLocal = 1 };
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t*);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t*, cudaGraph_t, unsigned long long);
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t);
cudaError_t cudaGraphDestroy(cudaGraph_t);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t);

// What CUDA does not have.
namespace emulator {

// Where the contents of a device address are; any other address stays what it is. translate() does that to every
// pointer among the aligned words of a kernel's arguments.
void* contents(const void* address);
void translate(void* arguments, size_t bytes);
// Queues work, or captures it.
void queue(cudaStream_t stream, std::function<void()> work);
// Something is wrong that a GPU would not have told: aborts with the sentence.
[[noreturn]] void fault(const char* sentence);

// The order in which threads and blocks run, and what shared memory holds at first, follow from it.
void set_seed(unsigned seed);
// The calls of sync() by their places in the sources, in the order in which they were first met; skip: the one that
// does nothing, -1 for none.
int barriers_met();
const char* barrier_name(int barrier);
void skip_barrier(int barrier);
// The next `calls`-th call of the runtime fails with `error`, and if it is a device's error, all later ones.
void fail_after(int calls, cudaError_t error);

}  // namespace emulator
