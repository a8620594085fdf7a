// Counter-based random numbers (Philox4x32-10, Salmon et al. 2011): a value is a function of the seed, the
// stream's name and the position, never of what was drawn before. Adding a layer moves no other stream.
// The standard library's distributions are not used: they differ between implementations.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "tandem/core/tensor.h"

namespace tandem {

// A named stream, such as Stream(seed, "init/dense1.weight") or Stream(seed, "shuffle/3").
class Stream {
 public:
  Stream(uint64_t seed, std::string_view name);

  uint64_t key() const { return key_; }
  uint64_t bits(uint64_t i) const;    // 64 random bits at position i
  double uniform(uint64_t i) const;   // in [0, 1), 53 bits
  double normal(uint64_t i) const;    // mean 0, variance 1 (Box-Muller, position i alone)
  uint64_t below(uint64_t i, uint64_t n) const;     // in [0, n), n > 0; bias below 2^-64 n
  std::vector<int32_t> permutation(int64_t n) const;  // of 0 .. n-1 (Fisher-Yates); ValueError outside [0, 2^31)

 private:
  uint64_t key_;
};

// Fill a floating tensor, drawn in float64 and rounded.
void fill_uniform(Tensor& x, double low, double high, const Stream& stream);
void fill_normal(Tensor& x, double mean, double std, const Stream& stream);

}  // namespace tandem
