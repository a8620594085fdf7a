// Block made of fibers: one per thread, switched where threads wait for each other.
#pragma once

#include <cuda_runtime.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace tandem::cuda {

struct Block {
  int index, thread, threads;

  void sync(const char* file = __builtin_FILE(), int line = __builtin_LINE()) const;
  template <class T>
  T shuffle_xor(T value, int mask) const {
    static_assert(sizeof(T) <= 8 && std::is_trivially_copyable_v<T>);
    unsigned char bytes[8] = {};
    std::memcpy(bytes, &value, sizeof(T));
    exchange(bytes, thread ^ mask);
    std::memcpy(&value, bytes, sizeof(T));
    return value;
  }
  int count(int* counter) const { return (*counter)++; }
  unsigned long long exchange_if(unsigned long long* word, unsigned long long expected,
                                 unsigned long long desired) const {
    const unsigned long long before = *word;
    if (before == expected) *word = desired;
    return before;
  }
  void load4(const float* from, float (&to)[4]) const {
    if (reinterpret_cast<std::size_t>(from) % 16 != 0) emulator::fault("load4: the address is not a multiple of 16");
    std::memcpy(to, from, sizeof(to));
  }
  template <std::size_t n>
  void store(const float (&from)[n], float* to) const {
    static_assert(n == 2 || n == 4);
    if (reinterpret_cast<std::size_t>(to) % sizeof(from) != 0) emulator::fault("store: the address is not aligned");
    std::memcpy(to, from, sizeof(from));
  }
  void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) const { mma(d, a, b, false); }
  void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) const { mma(d, a, b, true); }

 private:
  // The float that a bfloat16, or all of the word, stands for.
  static float factor(std::uint32_t word, bool pair, int half) {
    return std::bit_cast<float>(pair ? (half == 0 ? word << 16 : word & 0xffff0000u) : word);
  }
  std::uint64_t from_lane(std::uint32_t low, std::uint32_t high, int lane) const {
    const std::uint32_t words[2] = {low, high};
    unsigned char bytes[8];
    std::memcpy(bytes, words, sizeof(bytes));
    exchange(bytes, thread / 32 * 32 + lane);
    return std::bit_cast<std::uint64_t>(bytes);
  }
  // This thread's d: rows g and g + 8 of a, which the lanes of its group of four hold, times columns 2 t and 2 t + 1 of
  // b, of the groups of these numbers.
  void mma(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], bool pairs) const {
    const int g = thread % 32 / 4, t = thread % 4;
    std::uint32_t rows[2][8], columns[2][8];
    for (int k = 0; k < 4; ++k) {
      for (int i = 0; i < 2; ++i) {
        const std::uint64_t row = from_lane(a[i], a[i + 2], 4 * g + k);
        const std::uint64_t column = from_lane(b[0], b[1], 4 * (2 * t + i) + k);
        rows[i][k] = static_cast<std::uint32_t>(row);
        rows[i][k + 4] = static_cast<std::uint32_t>(row >> 32);
        columns[i][k] = static_cast<std::uint32_t>(column);
        columns[i][k + 4] = static_cast<std::uint32_t>(column >> 32);
      }
    }
    for (int i = 0; i < 4; ++i) {
      for (int k = 0; k < 8 * (1 + pairs); ++k) {
        const int word = k / (1 + pairs), half = k % (1 + pairs);
        d[i] += factor(rows[i / 2][word], pairs, half) * factor(columns[i % 2][word], pairs, half);
      }
    }
  }

  // Waits for the warp, each of whose threads offers 8 bytes, and takes those of thread `other`.
  void exchange(unsigned char (&bytes)[8], int other) const;
};

namespace emulator {
using namespace ::emulator;

// Runs body(context, block) as every thread of every block. Blocks run one after the other.
struct Grid {
  int blocks, threads;
  std::size_t shared;  // bytes, filled with NaN before each block
  bool waits;          // a thread may wait for another: fibers are needed
  void (*body)(const void* kernel, const Block& block, void* shared);
};
void run(const Grid& grid, const void* kernel);

template <class Kernel>
void launch(cudaStream_t stream, int blocks, const Kernel& kernel) {
  static_assert(sizeof(Kernel) <= 4096 && std::is_trivially_copyable_v<Kernel>,
                "CUDA passes kernels as 4 KiB of bytes");
  Kernel k = kernel;
  translate(&k, sizeof(k));
  if constexpr (requires { typename Kernel::Shared; }) {
    static_assert(sizeof(typename Kernel::Shared) <= 48 * 1024, "CUDA's limit for shared memory of fixed size");
    queue(stream, [=] {
      run({blocks, Kernel::threads, sizeof(typename Kernel::Shared), true,
           [](const void* arguments, const Block& block, void* shared) {
             (*static_cast<const Kernel*>(arguments))(block, *static_cast<typename Kernel::Shared*>(shared));
           }},
          &k);
    });
  } else {
    queue(stream, [=] {
      run({blocks, Kernel::threads, 0, false,
           [](const void* arguments, const Block& block, void*) { (*static_cast<const Kernel*>(arguments))(block); }},
          &k);
    });
  }
}

}  // namespace emulator
}  // namespace tandem::cuda
