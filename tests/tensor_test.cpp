// Tensors: creation, handles, copies, dtypes, printing.
#include "tandem/core/tensor.h"

#include "catch.hpp"
#include "helpers.h"

using namespace tandem;
using namespace tandem::test;

TEST_CASE("from copies host values, to_vector returns them", "[tensor]") {
  const Tensor x = Tensor::from(std::vector<float>{1, 2, 3, 4, 5, 6}, {2, 3});
  CHECK(x.shape() == Shape{2, 3});
  CHECK(x.to_vector<float>() == std::vector<float>{1, 2, 3, 4, 5, 6});
}
