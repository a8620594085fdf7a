// Kernels, and how they are started. A kernel is a struct that holds its operands by value:
//
//   struct Doubled {
//     static constexpr int threads = 256;   // of a block
//     struct Shared { float tile[256]; };   // what a block's threads share; uninitialised
//     const float* x;
//     float* y;
//     TANDEM_DEVICE void operator()(const Block& block, Shared& shared) const { ... }
//   };
//   launch(device, blocks, Doubled{x, y});
//
// Such files are compiled twice: by nvcc, and for the tests by the host's compiler, with the same Block made of fibers
// (emulator/block.h). So kernels use what Block offers and nothing else of CUDA.
#pragma once

#include "tandem/core/backend.h"
#include "tandem/cuda/runtime.h"

#ifdef __CUDACC__
#define TANDEM_DEVICE __device__ __forceinline__
#define TANDEM_UNROLL _Pragma("unroll")
#else
#include "tandem/cuda/emulator/block.h"
#define TANDEM_DEVICE inline
#define TANDEM_UNROLL _Pragma("GCC unroll 16")
#endif

namespace tandem::cuda {

inline constexpr int kWarp = 32;

#ifdef __CUDACC__

#if __CUDA_ARCH__ >= 800
#define TANDEM_MMA(shape, type)                                                       \
  asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type                \
               ".f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};" \
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                       \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#else  // such a GPU is refused: expect_tensor_cores()
#define TANDEM_MMA(shape, type) (void)d, (void)a, (void)b
#endif

// One thread's view of its block.
struct Block {
  int index, thread, threads;

  // Waits for all threads of the block; what they wrote is then seen by all.
  __device__ __forceinline__ void sync() const { __syncthreads(); }
  // The value of the thread of this warp whose lane differs by the bits of `mask`. All threads of the warp call it.
  template <class T>
  __device__ __forceinline__ T shuffle_xor(T value, int mask) const {
    return __shfl_xor_sync(0xffffffffu, value, mask);
  }
  // *counter + 1 in memory; returns what was there before. What this thread wrote to memory is seen by whoever counts
  // later and then reads.
  __device__ __forceinline__ int count(int* counter) const {
    __threadfence();
    const int before = atomicAdd(counter, 1);
    __threadfence();
    return before;
  }
  // *word = desired where it was `expected`; returns what was there before.
  __device__ __forceinline__ unsigned long long exchange_if(unsigned long long* word, unsigned long long expected,
                                                            unsigned long long desired) const {
    return atomicCAS_system(word, expected, desired);
  }
  // Four adjacent, 16-byte aligned floats at once.
  __device__ __forceinline__ void load4(const float* from, float (&to)[4]) const {
    const float4 v = *reinterpret_cast<const float4*>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  }
  // Two or four likewise.
  __device__ __forceinline__ void store(const float (&from)[2], float* to) const {
    *reinterpret_cast<float2*>(to) = make_float2(from[0], from[1]);
  }
  __device__ __forceinline__ void store(const float (&from)[4], float* to) const {
    *reinterpret_cast<float4*>(to) = make_float4(from[0], from[1], from[2], from[3]);
  }
  // By a warp, on tensor cores: d[16, 8] += a[16, 8] b[8, 8] of TF32 numbers, or += a[16, 16] b[16, 8] of bfloat16 in
  // pairs along the inner axis, the first in the lower half. In words, lane 4 g + t holds
  //   a: (g, t), (g + 8, t), (g, t + 4), (g + 8, t + 4);   b: (t, g), (t + 4, g);
  //   d: (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1).
  __device__ __forceinline__ void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) const {
    TANDEM_MMA("m16n8k8", "tf32");
  }
  __device__ __forceinline__ void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) const {
    TANDEM_MMA("m16n8k16", "bf16");
  }
};
#undef TANDEM_MMA

namespace detail {
template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads) entry(const __grid_constant__ Kernel kernel) {
  const Block block{static_cast<int>(blockIdx.x), static_cast<int>(threadIdx.x), Kernel::threads};
  if constexpr (requires { typename Kernel::Shared; }) {
    __shared__ __align__(16) unsigned char bytes[sizeof(typename Kernel::Shared)];
    kernel(block, *reinterpret_cast<typename Kernel::Shared*>(bytes));
  } else {
    kernel(block);
  }
}
}  // namespace detail

namespace detail {
template <class Kernel>
void enter(cudaStream_t stream, int blocks, const Kernel& kernel) {
  entry<Kernel><<<static_cast<unsigned>(blocks), Kernel::threads, 0, stream>>>(kernel);
}
}  // namespace detail

#else

namespace detail {
template <class Kernel>
void enter(cudaStream_t stream, int blocks, const Kernel& kernel) {
  emulator::launch(stream, blocks, kernel);
}
}  // namespace detail

#endif

// Queues the kernel on `blocks` blocks, in this thread's stream of the device; none: does nothing.
template <class Kernel>
void launch(Device device, int64_t blocks, const Kernel& kernel) {
  if (blocks == 0) return;
  detail::enter(stream(device), static_cast<int>(blocks), kernel);
  check_launch(typeid(Kernel));
}

// f(i) for every i in [0, n): one thread each.
template <class F>
struct ForElements {
  static constexpr int threads = 256;
  int64_t n;
  F f;
  TANDEM_DEVICE void operator()(const Block& block) const {
    const int64_t i = static_cast<int64_t>(block.index) * threads + block.thread;
    if (i < n) f(i);
  }
};
template <class F>
void for_elements(Device device, int64_t n, const F& f) {
  launch(device, ceil_div(n, ForElements<F>::threads), ForElements<F>{n, f});
}

// The sum over the block's threads, in a fixed order, for all of them. `partial` holds a value a warp. All threads call
// it; between two calls with the same `partial` there is a sync.
template <class T>
TANDEM_DEVICE T block_sum(const Block& block, T value, T* partial) {
  for (int mask = kWarp / 2; mask > 0; mask /= 2) value += block.shuffle_xor(value, mask);
  const int warp = block.thread / kWarp;
  if (block.thread % kWarp == 0) partial[warp] = value;
  block.sync();
  T total = 0;
  for (int w = 0; w < block.threads / kWarp; ++w) total += partial[w];
  return total;
}

}  // namespace tandem::cuda
