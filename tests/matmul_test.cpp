// The matrix products of the kernels: against float64 and OpenBLAS, and what they promise about bytes.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/blas.h"
#include "tandem/core/dispatch.h"
#include "tandem/core/ops.h"

using namespace tandem;

namespace {

using Floats = std::vector<float>;

Floats floats(int64_t n, uint64_t seed) { return test::random({n}, seed).to_vector<float>(); }

// A matrix among elements that no kernel may touch.
struct Fenced {
  static constexpr int64_t kFence = 32;
  int64_t rows, columns;
  Floats memory;

  Fenced(int64_t rows_, int64_t columns_)
      : rows(rows_), columns(columns_), memory(static_cast<size_t>(rows_ * columns_ + 2 * kFence), kUntouched) {}
  float* data() { return memory.data() + kFence; }
  View view() {
    View v;
    v.data = data();
    v.dims = {rows, columns};
    return v;
  }
  bool intact() const {
    const auto untouched = [](float x) { return std::memcmp(&x, &kUntouched, sizeof x) == 0; };
    return std::all_of(memory.begin(), memory.begin() + kFence, untouched) &&
           std::all_of(memory.end() - kFence, memory.end(), untouched);
  }
  static constexpr float kUntouched = -12345.75f;
};

View matrix(Floats& values, int64_t rows, int64_t columns) {
  View v;
  v.data = values.data();
  v.dims = {rows, columns};
  return v;
}

// The first element of y that is further from the float64 product, or OpenBLAS's, than k roundings of its largest
// partial sum explain; "" if none is.
std::string difference(const Gemm<float>& g, const float* bias, const float* y) {
  Floats blas(static_cast<size_t>(g.m * g.n));
  Gemm<float> oracle = g;
  oracle.c = blas.data();
  gemm(oracle);
  for (int64_t i = 0; i < g.m; ++i) {
    for (int64_t j = 0; j < g.n; ++j) {
      double want = bias ? bias[j] : 0, size = std::fabs(want);
      for (int64_t k = 0; k < g.k; ++k) {
        const double product = static_cast<double>(g.transpose_a ? g.a[k * g.lda + i] : g.a[i * g.lda + k]) *
                               (g.transpose_b ? g.b[j * g.ldb + k] : g.b[k * g.ldb + j]);
        want += product;
        size += std::fabs(product);
      }
      const double bound = size * static_cast<double>(2 * g.k + 1) * std::numeric_limits<float>::epsilon() / 2;
      const double got = y[i * g.n + j], other = static_cast<double>(blas[i * g.n + j]) + (bias ? bias[j] : 0);
      if (!(std::fabs(got - want) <= bound)) return fmt::format("[{}, {}]: {} instead of {}", i, j, got, want);
      if (!(std::fabs(got - other) <= 2 * bound)) return fmt::format("[{}, {}]: {}, OpenBLAS {}", i, j, got, other);
    }
  }
  return "";
}

struct Size {
  int64_t m, n, k;
};

// y[m, n] of every kernel that multiplies, as the product that it is.
void check_products(const Size& s) {
  INFO(s.m << " x " << s.n << " x " << s.k);
  Floats a = floats(s.m * s.k, 1), b = floats(s.k * s.n, 2), bias = floats(s.n, 3);
  const auto check = [&](bool transpose_a, bool transpose_b, const float* added, const auto& run) {
    Fenced y(s.m, s.n);
    run(y.view());
    INFO("transposed: " << transpose_a << " " << transpose_b);
    CHECK(y.intact());
    CHECK(difference({s.m, s.n, s.k, a.data(), transpose_a ? s.m : s.k, transpose_a, b.data(), transpose_b ? s.k : s.n,
                      transpose_b, nullptr, s.n},
                     added, y.data()) == "");
  };
  const View rows = matrix(a, s.m, s.k), columns = matrix(a, s.k, s.m);  // a as it lies, and transposed
  const View b_rows = matrix(b, s.k, s.n), b_columns = matrix(b, s.n, s.k);
  check(false, false, nullptr, [&](View y) { launch(MatMul{rows, b_rows, y, false, false}); });
  check(false, true, nullptr, [&](View y) { launch(MatMul{rows, b_columns, y, false, true}); });
  check(true, false, nullptr, [&](View y) { launch(MatMul{columns, b_rows, y, true, false}); });
  check(true, true, nullptr, [&](View y) { launch(MatMul{columns, b_columns, y, true, true}); });
  View bias_view = matrix(bias, 1, s.n);
  bias_view.dims = {s.n};
  check(false, true, bias.data(), [&](View y) { launch(Linear{rows, b_columns, bias_view, y}); });
  check(false, false, nullptr, [&](View y) { launch(LinearDx{rows, b_rows, y}); });
  if (chunking({s.k, s.n}).lanes() > 1) return;
  check(true, false, nullptr, [&](View y) {
    y.dims = {1, s.m, s.n};
    launch(LinearDw{columns, b_rows, y});
  });
}

}  // namespace

TEST_CASE("Products of any size equal float64 and OpenBLAS to their roundings", "[ops]") {
  const int64_t sizes[] = {1, 7, 31, 33, 127};
  for (const int64_t m : sizes) {
    for (const int64_t n : sizes) {
      for (const int64_t k : sizes) check_products({m, n, k});
    }
  }
  // Layers of small networks, a transposed a too long for the caches, and one of several blocks of rows.
  for (const Size& s : {Size{60, 100, 784}, Size{128, 10, 100}, Size{128, 512, 100}, Size{100, 784, 128},
                        Size{784, 33, 127}, Size{130, 97, 300}, Size{401, 70, 1000}}) {
    check_products(s);
  }
}

TEST_CASE("A row of a product does not depend on the rows beside it", "[ops]") {
  const int64_t m = 300, k = 301, n = GENERATE(10, 131);
  const Tensor x = test::random({m, k}, 1), w = test::random({n, k}, 2), bias = test::random({n}, 3);
  const Tensor b = test::random({k, n}, 4);
  const auto products = [&](int64_t begin, int64_t end) {
    View rows = x;
    rows.data = rows.as<float>() + begin * k;
    rows.dims = {end - begin, k};
    Tensor y = empty({end - begin, n}), dx = empty_like(y), product = empty_like(y);
    launch(Linear{rows, w, bias, y});
    launch(LinearDx{rows, b, dx});
    launch(MatMul{rows, w, product, false, true});
    return std::vector<Tensor>{y, dx, product};
  };
  const std::vector<Tensor> all = products(0, m);
  for (const auto& [begin, end] : {std::pair{0, 1}, {7, 8}, {299, 300}, {0, 64}, {3, 68}, {5, 199}, {100, 300}}) {
    const std::vector<Tensor> some = products(begin, end);
    for (size_t i = 0; i < all.size(); ++i) {
      INFO(i << ": " << begin << " to " << end);
      CHECK(std::memcmp(some[i].data<float>(), all[i].data<float>() + begin * n,
                        static_cast<size_t>((end - begin) * n) * sizeof(float)) == 0);
    }
  }
}

TEST_CASE("A sum over rows goes on where the rows before it ended", "[ops]") {
  const int64_t rows = 200, in = 131, out = 70;
  const Tensor x = test::random({rows, in}, 1), dy = test::random({rows, out}, 2);
  Tensor whole = empty({1, out, in}), parts = empty_like(whole);
  launch(LinearDw{dy, x, whole});
  for (const auto& [begin, end] : {std::pair{0, 3}, {3, 128}, {128, 200}}) {
    View some_x = x, some_dy = dy;
    some_x.data = some_x.as<float>() + begin * in;
    some_dy.data = some_dy.as<float>() + begin * out;
    some_x.dims = {end - begin, in};
    some_dy.dims = {end - begin, out};
    launch(LinearDw{some_dy, some_x, Sum(parts, begin > 0)});
  }
  CHECK(test::bytes(parts) == test::bytes(whole));
}

TEST_CASE("Dropping the zeros of x changes no byte of a linear layer", "[ops]") {
  const int64_t n = GENERATE(1, 7, 128, 300, 1000), in = GENERATE(1, 7, 33, 784), out = GENERATE(1, 10, 33, 130);
  const double density = GENERATE(0.0, 0.2, 1.0);
  INFO(n << " x " << in << " -> " << out << ", density " << density);
  Floats x = floats(n * in, 1), w = floats(out * in, 2), bias = floats(out, 3), dy = floats(n * out, 4);
  const Floats draw = test::random({n * in}, 5, Dtype::float32, 0, 1).to_vector<float>();
  for (int64_t i = 0; i < n * in; ++i) {
    const bool empty = density > 0 && density < 1 && (i / in % 5 == 3 || i % in % 16 < 5);  // rows and columns
    if (draw[i] >= density || empty) x[i] = i % 3 == 0 ? -0.0f : 0.0f;
  }
  View bias_view = matrix(bias, 1, out);
  bias_view.dims = {out};
  const int64_t lanes = chunking({n, in}).lanes();
  const auto run = [&](bool sparse) {
    Fenced y(n, out), dw(lanes * out, in);
    View dw_view = dw.view();
    dw_view.dims = {lanes, out, in};
    const View some_x = matrix(x, n, in), some_dy = matrix(dy, n, out);
    launch(Linear{some_x, matrix(w, out, in), bias_view, y.view(), sparse});
    launch(LinearDw{some_dy, some_x, dw_view, sparse});
    launch(LinearDw{some_dy, some_x, Sum(dw_view, true), sparse});
    y.memory.insert(y.memory.end(), dw.memory.begin(), dw.memory.end());
    return y.memory;
  };
  const Floats dense = run(false), sparse = run(true);
  CHECK(std::memcmp(dense.data(), sparse.data(), dense.size() * sizeof(float)) == 0);
}

TEST_CASE("A hint of zeros changes no byte of linear's gradients", "[ops]") {
  const auto gradients = [&](bool hint) {
    Tensor x = relu(test::random({70, 9, 7}, 1)), w = test::random({33, 63}, 3), b = test::random({33}, 4);
    x.set_mostly_zero(hint).set_requires_grad(true);
    w.set_requires_grad(true);
    b.set_requires_grad(true);
    const Tensor y = linear(x.reshape({70, 63}), w, b);
    sum(y * y).backward();
    return std::vector{test::bytes(y), test::bytes(x.grad()), test::bytes(w.grad()), test::bytes(b.grad())};
  };
  CHECK(gradients(true) == gradients(false));
}
