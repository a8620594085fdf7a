// The CUDA runtime as the kernels see it: errors as exceptions, this thread's stream, memory to work in.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <typeinfo>

#include "tandem/core/device.h"

namespace tandem::cuda {

// Throws OutOfMemory or DeviceError, naming the expression and its place, unless status is cudaSuccess.
void check(cudaError_t status, const char* expression, const char* file, int line);
#define TANDEM_CUDA(expression) ::tandem::cuda::check((expression), #expression, __FILE__, __LINE__)

// The same for what a launch of such a kernel left.
void check_launch(const std::type_info& kernel);

// This thread's stream of the device, which becomes the current one.
cudaStream_t stream(Device device);

// Memory for partial results of the kernels of one call: at least so many bytes, for work queued in this thread's
// stream until the next call of workspace() for it.
void* workspace_bytes(Device device, size_t bytes);
template <class T>
T* workspace(Device device, int64_t n) {
  return static_cast<T*>(workspace_bytes(device, static_cast<size_t>(n) * sizeof(T)));
}
// kCounters counters that are 0; a kernel that counts leaves them 0.
inline constexpr int kCounters = 4096;
int* counters(Device device);

// Where a kernel of this stream notes what it refuses: the word is 0 until the first does, then
// refusal(...); read by synchronize().
unsigned long long* refusals(Device device);

}  // namespace tandem::cuda
