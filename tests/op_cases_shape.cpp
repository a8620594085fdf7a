// The op table: ops that move elements, and matrix products.
#include "op_cases.h"

namespace tandem::test {
namespace {

using Kind = OpInput::Kind;

// One operand.
OpCase move(const std::string& name, const Shape& small, const Shape& large, Tensor (*op)(const Tensor&),
            reference::Array (*f)(const reference::Array&)) {
  OpCase row{.name = name,
             .samples = {{{small}}},
             .op = [op](const Tensors& x) { return op(x[0]); },
             .reference = [f](const Arrays& x) { return f(x[0]); }};
  if (large.rank() > 0) row.large = {{large}};
  return row;
}

OpCase concat_along(const std::string& name, int axis, std::vector<OpInputs> samples, OpInputs large = {}) {
  return {.name = name,
          .samples = std::move(samples),
          .large = std::move(large),
          .op = [axis](const Tensors& x) { return concat(x, axis); },
          .reference = [axis](const Arrays& x) { return reference::concat(x, axis); }};
}

}  // namespace

std::vector<OpCase> shape_cases() {
  using reference::Array;
  return {
      move(
          "reshape", {3, 4}, {67, 96},
          [](const Tensor& x) {
            return reshape(x, {2, x.numel() / 2});
          },
          [](const Array& x) {
            return reference::reshape(x, {2, x.shape.numel() / 2});
          }),
      move(
          "reshape, to a scalar", {1, 1}, {}, [](const Tensor& x) { return x.reshape({}); },
          [](const Array& x) { return reference::reshape(x, {}); }),
      move(
          "permute, NCHW to NHWC", {2, 3, 4, 2}, {9, 17, 30, 31},
          [](const Tensor& x) {
            return permute(x, {0, 2, 3, 1});
          },
          [](const Array& x) {
            return reference::permute(x, {0, 2, 3, 1});
          }),
      move(
          "permute, five axes and negative ones", {2, 3, 1, 2, 2}, {},
          [](const Tensor& x) {
            return permute(x, {4, 0, -2, 1, 2});
          },
          [](const Array& x) {
            return reference::permute(x, {4, 0, -2, 1, 2});
          }),
      move(
          "permute, the identity", {2, 3}, {},
          [](const Tensor& x) {
            return permute(x, {0, 1});
          },
          [](const Array& x) { return x; }),
      move(
          "permute, of nothing", {0, 3}, {},
          [](const Tensor& x) {
            return permute(x, {1, 0});
          },
          [](const Array& x) {
            return reference::permute(x, {1, 0});
          }),
      move("transpose", {3, 4}, {317, 211}, transpose,
           [](const Array& x) {
             return reference::permute(x, {1, 0});
           }),
      move(
          "slice, rows", {5, 3}, {501, 77}, [](const Tensor& x) { return slice(x, 0, 1, 4); },
          [](const Array& x) { return reference::slice(x, 0, 1, 4); }),
      move(
          "slice, the last axis", {2, 3, 5}, {70, 33, 50}, [](const Tensor& x) { return slice(x, -1, 2, 5); },
          [](const Array& x) { return reference::slice(x, -1, 2, 5); }),
      move(
          "slice, all", {2, 3}, {}, [](const Tensor& x) { return slice(x, 1, 0, 3); },
          [](const Array& x) { return x; }),
      move(
          "slice, nothing", {2, 3}, {}, [](const Tensor& x) { return slice(x, 1, 2, 2); },
          [](const Array& x) { return reference::slice(x, 1, 2, 2); }),
      move(
          "expand", {3, 1}, {317, 1},
          [](const Tensor& x) {
            return expand(x, {2, x.dim(0), 4});
          },
          [](const Array& x) {
            return reference::expand(x, {2, x.shape[0], 4});
          }),
      move(
          "expand, to its own shape", {3, 2}, {},
          [](const Tensor& x) {
            return expand(x, {3, 2});
          },
          [](const Array& x) { return x; }),
      move(
          "expand, of a scalar", {}, {},
          [](const Tensor& x) {
            return expand(x, {2, 2});
          },
          [](const Array& x) {
            return reference::expand(x, {2, 2});
          }),
      concat_along("concat, rows", 0, {{{{2, 3}}, {{1, 3}}, {{4, 3}}}, {{{2, 3}}}, {{{0, 3}}, {{2, 3}}}},
                   {{{301, 33}}, {{57, 33}}}),
      concat_along("concat, the last axis", -1, {{{{2, 3}}, {{2, 1}}, {{2, 2}}}}, {{{301, 33}}, {{301, 57}}}),
      concat_along("concat, the middle axis", 1, {{{{2, 3, 2}}, {{2, 1, 2}}}}, {{{31, 33, 9}}, {{31, 57, 9}}}),
      {.name = "gather_rows",
       .samples = {{{{4, 3}}, {{6}, 0, 4, Kind::index}},
                   {{{3, 2, 2}}, {{1}, 0, 3, Kind::index}},
                   {{{4}}, {{5}, 0, 4, Kind::index}},
                   {{{4, 3}}, {{0}, 0, 4, Kind::index}}},
       .large = {{{50, 301}}, {{400}, 0, 50, Kind::index}},
       .op = [](const Tensors& x) { return gather_rows(x[0], x[1]); },
       .reference = [](const Arrays& x) { return reference::gather_rows(x[0], x[1]); }},
      {.name = "matmul",
       .samples = {{{{3, 4}}, {{4, 2}}},
                   {{{1, 5}}, {{5, 3}}},
                   {{{4, 1}}, {{1, 3}}},
                   {{{3, 4}}, {{4, 1}}},
                   {{{1, 1}}, {{1, 1}}},
                   {{{0, 4}}, {{4, 2}}},
                   {{{2, 0}}, {{0, 3}}}},
       .large = {{{257, 311}}, {{311, 130}}},
       .op = [](const Tensors& x) { return matmul(x[0], x[1]); },
       .reference = [](const Arrays& x) { return reference::matmul(x[0], x[1]); },
       .roundings = 128},
      {.name = "linear",
       .samples = {{{{3, 4}}, {{5, 4}}, {{5}}},
                   {{{1, 4}}, {{2, 4}}, {{2}}},
                   {{{3, 1}}, {{1, 1}}, {{1}}},
                   {{{0, 4}}, {{5, 4}}, {{5}}}},
       .large = {{{391, 203}}, {{130, 203}}, {{130}}},
       .op = [](const Tensors& x) { return linear(x[0], x[1], x[2]); },
       .reference = [](const Arrays& x) { return reference::linear(x[0], x[1], x[2]); },
       .roundings = 128},
      {.name = "linear, of an x said to be mostly zero",
       .samples = {{{{3, 5}}, {{5, 5}}, {{5}}}, {{{1, 4}}, {{2, 4}}, {{2}}}, {{{0, 4}}, {{5, 4}}, {{5}}}},
       .large = {{{391, 203}}, {{330, 203}}, {{330}}},
       .op = [](const Tensors& x) { return linear(reshape(x[0], x[0].shape()).set_mostly_zero(true), x[1], x[2]); },
       .reference = [](const Arrays& x) { return reference::linear(x[0], x[1], x[2]); },
       .roundings = 64},
      {.name = "linear, no bias",
       .samples = {{{{3, 4}}, {{5, 4}}}},
       .large = {{{391, 203}}, {{130, 203}}},
       .op = [](const Tensors& x) { return linear(x[0], x[1]); },
       .reference = [](const Arrays& x) { return reference::linear(x[0], x[1], {}); },
       .roundings = 64},
  };
}

}  // namespace tandem::test
