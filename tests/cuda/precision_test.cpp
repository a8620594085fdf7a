// Products of float32 in each precision, outputs and gradients, against float64.
#include <cmath>

#include "../catch.hpp"
#include "../gradcheck.h"
#include "../helpers.h"
#include "steps.h"
#include "tandem/core/autograd.h"
#include "tandem/core/cuda.h"
#include "tandem/core/ops.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Tensors = std::vector<Tensor>;
using Op = std::function<Tensor(const Tensors&)>;

struct Product {
  std::string name;
  std::vector<Shape> inputs;
  Op op;
};
const std::vector<Product> kProducts = {
    {"matmul", {{33, 70}, {70, 29}}, [](const Tensors& t) { return matmul(t[0], t[1]); }},
    {"linear", {{60, 100}, {50, 100}}, [](const Tensors& t) { return linear(t[0], t[1]); }},
    {"conv2d",
     {{4, 9, 9, 16}, {24, 3, 3, 16}},
     [](const Tensors& t) { return conv2d(t[0], t[1], {}, {.padding = 1}); }},
    {"conv2d, stride 2",
     {{3, 8, 7, 8}, {32, 3, 3, 8}},
     [](const Tensors& t) { return conv2d(t[0], t[1], {}, {.stride = 2, .padding = 1}); }},
};

// In `math`, the least and the most by which a result differs from float64's, of its norm: roundings of 2^-24, 2^-11
// and 2^-8, some of which cancel.
struct Bound {
  Math math;
  double least, most;
};
const Bound kBounds[] = {{Math::fp32, 0, 1e-6}, {Math::tf32, 3e-5, 1e-3}, {Math::bf16, 3e-4, 8e-3}};

struct WithMath {
  explicit WithMath(Math math) { cuda::set_math(math); }
  ~WithMath() { cuda::set_math(Math::fp32); }
};

Tensors results(const Product& product, Device device, Dtype dtype) {
  Tensors inputs;
  for (size_t i = 0; i < product.inputs.size(); ++i)
    inputs.push_back(random(product.inputs[i], i + 1).to(dtype).to(device).set_requires_grad(true));
  Tensors all = gradients(product.op, inputs);
  const NoGrad no_grad;
  all.push_back(product.op(inputs));
  return all;
}

double off(const Tensor& got, const Tensor& want) {
  const std::vector<double> a = values(got), b = values(want);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  return std::sqrt(difference / norm);
}

}  // namespace

TEST_CASE("Each precision of products is within its bounds of float64, and no better than it claims", "[cuda]") {
  if (no_gpu()) return;
  for (const Product& product : kProducts) {
    const Tensors want = results(product, Device::cpu(), Dtype::float64);
    for (const Bound& bound : kBounds) {
      const WithMath with(bound.math);
      const Tensors got = results(product, kGpu, Dtype::float32);
      for (size_t i = 0; i < want.size(); ++i) {
        INFO(product.name << ", " << name_of(bound.math) << ", " << (i < 2 ? "gradient" : "output"));
        const double difference = off(got[i], want[i]);
        CHECK(difference >= bound.least);
        CHECK(difference <= bound.most);
      }
    }
    const WithMath with(Math::bf16);  // is of float32 alone
    const Tensors exact = results(product, kGpu, Dtype::float64);
    for (size_t i = 0; i < want.size(); ++i) CHECK(off(exact[i], want[i]) <= 1e-14);
  }
}
