// Element types. float32 and float64 compute; int32 labels, uint8 images, int64 counters.
#pragma once

#include <cstdint>

namespace tandem {

enum class Dtype : uint8_t { float32, float64, int32, int64, uint8 };

constexpr int64_t size_of(Dtype t) {
  return t == Dtype::uint8 ? 1 : t == Dtype::float32 || t == Dtype::int32 ? 4 : 8;
}
constexpr bool is_floating(Dtype t) { return t == Dtype::float32 || t == Dtype::float64; }
constexpr const char* name_of(Dtype t) {
  switch (t) {
    case Dtype::float32: return "float32";
    case Dtype::float64: return "float64";
    case Dtype::int32: return "int32";
    case Dtype::int64: return "int64";
    case Dtype::uint8: return "uint8";
  }
  return "?";
}

// The dtype of elements of a C++ type.
template <class T>
inline constexpr Dtype dtype_of = T::is_no_element_type;
template <>
inline constexpr Dtype dtype_of<float> = Dtype::float32;
template <>
inline constexpr Dtype dtype_of<double> = Dtype::float64;
template <>
inline constexpr Dtype dtype_of<int32_t> = Dtype::int32;
template <>
inline constexpr Dtype dtype_of<int64_t> = Dtype::int64;
template <>
inline constexpr Dtype dtype_of<uint8_t> = Dtype::uint8;

}  // namespace tandem
