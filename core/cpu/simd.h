// One vector of floats, as wide as the instruction set of this copy has them. GCC's and Clang's vector extensions
// do the arithmetic; an FMA is written fma(), which is one rounding on AVX2 and AVX-512 and two on plain x86-64.
#pragma once

#include <immintrin.h>

#include "tandem/core/cpu/kernel.h"

#define TANDEM_UNROLL _Pragma("GCC unroll 32")

namespace tandem::TANDEM_BACKEND {

#if defined(__AVX512F__)
inline constexpr int64_t kLanes = 16, kRegisters = 32;
#elif defined(__AVX2__)
inline constexpr int64_t kLanes = 8, kRegisters = 16;
#else
inline constexpr int64_t kLanes = 4, kRegisters = 16;
#endif

typedef float Vec __attribute__((vector_size(kLanes * sizeof(float)), may_alias));
typedef float UnalignedVec __attribute__((vector_size(kLanes * sizeof(float)), aligned(4), may_alias));

[[gnu::always_inline]] inline Vec load(const float* p) { return *reinterpret_cast<const UnalignedVec*>(p); }
[[gnu::always_inline]] inline void store(float* p, Vec v) { *reinterpret_cast<UnalignedVec*>(p) = v; }
// The first `count` lanes, 0 < count <= kLanes; the others are 0, or are not written.
[[gnu::always_inline]] inline Vec load_some(const float* p, int64_t count) {
#if defined(__AVX512F__)
  return (Vec)_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << count) - 1), p);
#else
  if (count == kLanes) return load(p);
  Vec v{};
  for (int64_t i = 0; i < count; ++i) v[i] = p[i];
  return v;
#endif
}
[[gnu::always_inline]] inline void store_some(float* p, Vec v, int64_t count) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << count) - 1), (__m512)v);
#else
  if (count == kLanes) return store(p, v);
  for (int64_t i = 0; i < count; ++i) p[i] = v[i];
#endif
}
[[gnu::always_inline]] inline Vec splat(float x) { return x - Vec{}; }

// For stores to come that no hardware prefetcher foresees: one that misses the L1 cache holds up all behind it.
[[gnu::always_inline]] inline void prefetch_store(const float* p) { __builtin_prefetch(p, 1); }

// Bit i is set where lane i is not 0; a NaN is not.
[[gnu::always_inline]] inline unsigned nonzero(Vec v) {
#if defined(__AVX512F__)
  return _mm512_cmp_ps_mask((__m512)v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
#elif defined(__AVX2__)
  return static_cast<unsigned>(_mm256_movemask_ps(_mm256_cmp_ps((__m256)v, _mm256_setzero_ps(), _CMP_NEQ_UQ)));
#else
  return static_cast<unsigned>(_mm_movemask_ps(_mm_cmpneq_ps((__m128)v, _mm_setzero_ps())));
#endif
}

// Bit i is set where masks[i] has a bit of `any`, for 64 masks.
[[gnu::always_inline]] inline uint64_t having(const uint16_t* masks, unsigned any) {
#if defined(__AVX512F__)
  const __m512i wanted = _mm512_set1_epi16(static_cast<int16_t>(any));
  return _mm512_test_epi16_mask(_mm512_loadu_si512(masks), wanted) |
         uint64_t{_mm512_test_epi16_mask(_mm512_loadu_si512(masks + 32), wanted)} << 32;
#else
  uint64_t set = 0;
  for (int64_t i = 0; i < 64; ++i) set |= uint64_t{(masks[i] & any) != 0} << i;
  return set;
#endif
}

// a * b + c
[[gnu::always_inline]] inline Vec fma(Vec a, Vec b, Vec c) {
#if defined(__AVX512F__)
  return (Vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

}  // namespace tandem::TANDEM_BACKEND
