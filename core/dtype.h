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

template <class T>
struct DtypeOf;
template <>
struct DtypeOf<float> {
  static constexpr Dtype value = Dtype::float32;
};
template <>
struct DtypeOf<double> {
  static constexpr Dtype value = Dtype::float64;
};
template <>
struct DtypeOf<int32_t> {
  static constexpr Dtype value = Dtype::int32;
};
template <>
struct DtypeOf<int64_t> {
  static constexpr Dtype value = Dtype::int64;
};
template <>
struct DtypeOf<uint8_t> {
  static constexpr Dtype value = Dtype::uint8;
};

}  // namespace tandem
