// THE op table. One row per op (and per way of using it that has code of its own): operands, the op, a naive
// reference. From each row ops_test.cpp makes: forward against the reference in float32 and float64, gradient
// by central differences, poisoned outputs, equal bytes on any number of threads; and from each row of
// op_errors() the exact error text on both dtypes. Adding an op means adding its rows here.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "reference.h"
#include "tandem/core/ops.h"

namespace tandem::test {

using Tensors = std::vector<Tensor>;
using Arrays = std::vector<reference::Array>;

// One operand of an op, drawn by make_inputs.
struct OpInput {
  enum class Kind {
    differentiable,  // floating, in [low, high); its gradient is checked
    constant,        // floating, in [low, high)
    index,           // int32, in [0, high)
    absent,          // an empty Tensor: the option is not used
  };
  Shape shape;
  double low = -1, high = 1;
  Kind kind = Kind::differentiable;
};
using OpInputs = std::vector<OpInput>;

struct OpCase {
  std::string name;               // the function's name in core/ops.h, then what is special: "conv2d, groups"
  std::vector<OpInputs> samples;  // small: also for central differences
  OpInputs large = {};            // work for several threads; may be empty
  std::function<Tensor(const Tensors&)> op;
  std::function<reference::Array(const Arrays&)> reference;
  double roundings = 16;  // the largest error, in roundings of the dtype, relative to max(1, |value|)
};

struct OpError {
  std::string name;                 // "matmul, inner extents differ"
  std::function<void(Dtype)> call;  // must throw
  std::string text;                 // the whole message; "{dtype}" and "{device}" stand for their names
};

// The operands of one call. Floating values are all different within a call, at least (high - low) / n apart
// for n values in all and half of that away from 0: no kink (relu at 0, two equal values under max) is near.
Tensors make_inputs(const OpInputs& operands, Dtype dtype, uint64_t seed = 1);

std::vector<OpCase> elementwise_cases();
std::vector<OpCase> shape_cases();
std::vector<OpCase> image_cases();
std::vector<OpCase> batch_norm_cases();
std::vector<OpCase> loss_cases();
std::vector<OpError> op_errors();

const std::vector<OpCase>& op_cases();  // all of them

}  // namespace tandem::test
