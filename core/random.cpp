#include "tandem/core/random.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>
#include <numbers>
#include <numeric>

#include "tandem/core/error.h"
#include "tandem/core/parallel.h"
#include "tandem/core/scalar_math.h"

namespace tandem {
namespace {

// splitmix64's finaliser: every bit of the result depends on every bit of x.
uint64_t mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

uint64_t fnv1a(std::string_view text) {
  uint64_t hash = 0xCBF29CE484222325;
  for (unsigned char c : text) hash = (hash ^ c) * 0x100000001B3;
  return hash;
}

double to_unit(uint64_t bits) { return static_cast<double>(bits >> 11) * 0x1p-53; }

template <class T, class Draw>
void draw_all(Tensor& x, const Draw& draw) {
  T* values = x.mutable_data<T>();
  parallel_ranges(x.numel(), 4096, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) values[i] = static_cast<T>(draw(static_cast<uint64_t>(i)));
  });
}

// Draws in float64 on the CPU, rounds to x's dtype.
template <class Draw>
void fill(Tensor& x, const Draw& draw) {
  Tensor drawn = empty(x.shape(), {x.dtype() == Dtype::float64 ? Dtype::float64 : Dtype::float32});
  drawn.dtype() == Dtype::float64 ? draw_all<double>(drawn, draw) : draw_all<float>(drawn, draw);
  x.copy_from(drawn);
}

}  // namespace

Stream::Stream(uint64_t seed, std::string_view name) : key_(mix(mix(seed) ^ fnv1a(name))) {}

uint64_t Stream::bits(uint64_t i) const {
  const auto r = philox4x32(key_, i, 0);
  return uint64_t{r.v[0]} << 32 | r.v[1];
}

double Stream::uniform(uint64_t i) const { return to_unit(bits(i)); }

double Stream::normal(uint64_t i) const {
  const auto r = philox4x32(key_, i, 0);
  const double u = 1 - to_unit(uint64_t{r.v[0]} << 32 | r.v[1]);  // in (0, 1]: its logarithm is finite
  const double v = to_unit(uint64_t{r.v[2]} << 32 | r.v[3]);
  return std::sqrt(-2 * std::log(u)) * std::cos(2 * std::numbers::pi * v);
}

uint64_t Stream::below(uint64_t i, uint64_t n) const {
  __extension__ using Wide = unsigned __int128;
  return static_cast<uint64_t>((static_cast<Wide>(bits(i)) * n) >> 64);
}

std::vector<int32_t> Stream::permutation(int64_t n) const {
  if (n < 0 || n > INT32_MAX) throw ValueError(fmt::format("permutation: expected n in [0, 2^31), got {}", n));
  std::vector<int32_t> order(static_cast<size_t>(n));
  std::iota(order.begin(), order.end(), 0);
  for (int64_t i = n - 1; i > 0; --i) std::swap(order[i], order[below(i, i + 1)]);
  return order;
}

void fill_uniform(Tensor& x, double low, double high, const Stream& stream) {
  fill(x, [&](uint64_t i) { return low + (high - low) * stream.uniform(i); });
}

void fill_normal(Tensor& x, double mean, double std, const Stream& stream) {
  fill(x, [&](uint64_t i) { return mean + std * stream.normal(i); });
}

}  // namespace tandem
