// Kernel calls on the slices of a batch give the bytes of one call on all of it, and fused kernels those of the
// separate ones.
#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/dispatch.h"
#include "tandem/core/tensor.h"

using namespace tandem;

namespace {

// Rows [begin, begin + n) of a tensor, as a kernel sees them.
View rows(const Tensor& x, int64_t begin, int64_t n) {
  View part(x);
  const int64_t row = x.numel() / x.dim(0) * static_cast<int64_t>(size_of(x.dtype()));
  part.data = part.as<char>() + begin * row;
  part.dims = x.shape().with(0, n);
  return part;
}

// Whether `call`(first row, rows, sums), which adds to the sums but in a lane's first chunk, gives the bytes of one
// call on all rows of a batch of this shape.
template <class F>
void check_lanes(const Shape& batch, const Shape& sum, Dtype dtype, const F& call) {
  const Chunking cut = chunking(batch);
  const Tensor whole = full(sum.insert(0, cut.lanes()), 3, {dtype}), parts = full(whole.shape(), 4, {dtype});
  call(0, cut.n, Sum(whole));
  for (int64_t lane = 0; lane < cut.lanes(); ++lane) {
    for (int64_t i = cut.lane_begin(lane); i < cut.lane_begin(lane + 1); i += cut.rows) {
      call(i, std::min(cut.rows, cut.n - i), Sum(rows(parts, lane, 1), i > cut.lane_begin(lane)));
    }
  }
  CHECK(test::bytes(parts) == test::bytes(whole));
}

// Calls `call`(first row, rows) for each chunk of a batch.
template <class F>
void for_chunks(const Shape& batch, const F& call) {
  const Chunking cut = chunking(batch);
  for (int64_t i = 0; i < cut.n; i += cut.rows) call(i, std::min(cut.rows, cut.n - i));
}

}  // namespace

TEST_CASE("A lane of sums is the sequence of its chunks") {
  const Dtype dtype = GENERATE(Dtype::float32, Dtype::float64);
  for (const Shape& shape : {Shape{37, 5, 6, 4}, Shape{2200, 33}, Shape{35, 6, 3}}) {
    const Tensor x = test::random(shape, 1, dtype), dy = test::random(shape, 2, dtype);
    const int64_t channels = x.dim(-1);
    const Tensor mean = test::random({channels}, 3, Dtype::float64);
    const Tensor rstd = test::random({channels}, 4, Dtype::float64, 0.5, 2);
    check_lanes(shape, {channels}, Dtype::float64,
                [&](int64_t i, int64_t n, const Sum& db) { launch(SumRows{rows(dy, i, n), db}); });
    check_lanes(shape, {2, channels}, Dtype::float64, [&](int64_t i, int64_t n, const Sum& sums) {
      launch(BnGradSums{rows(dy, i, n), rows(x, i, n), mean, rstd, sums, shape.rank() - 1});
    });
    if (shape.rank() != 4) continue;
    check_lanes(shape, {4, 3, 3, 4}, dtype, [&](int64_t i, int64_t n, const Sum& dw) {
      launch(ConvDw{rows(dy, i, n), rows(x, i, n), dw, {3, 1, 1, 1}, 1});
    });
  }
}

namespace {

// Every batch norm kernel on one batch, fused with an activation and not, whole and chunk by chunk.
void check_batch_norm(const Shape& shape, int axis, Dtype dtype, UnaryOp act, double spread) {
  CAPTURE(to_string(shape), axis, static_cast<int>(act), spread);
  const int64_t channels = shape[axis], values = shape.numel() / channels;
  const Chunking cut = chunking(shape);
  const TensorOptions f64{Dtype::float64};
  const Tensor x = test::random(shape, 1, dtype, -spread, spread), dy = test::random(shape, 2, dtype), none;
  const Tensor gamma = test::random({channels}, 3, dtype), beta = test::random({channels}, 4, dtype);
  const Tensor moments = empty({cut.chunks(), 2, channels}, f64), slots = empty_like(moments);
  const Tensor mean = empty({channels}, f64), rstd = empty({channels}, f64), total = empty({2, channels}, f64);
  const auto part = [](const Tensor& t, int64_t i, int64_t n) { return rows(t, i, n); };

  launch(BnMoments{x, none, moments, none, axis});
  for_chunks(shape, [&](int64_t i, int64_t n) {
    launch(BnMoments{part(x, i, n), none, part(slots, i / cut.rows, 1), none, axis});
  });
  REQUIRE(test::bytes(slots) == test::bytes(moments));
  launch(BnFinish{moments, none, mean, rstd, none, none, none, none, cut.n, cut.rows, values / cut.n, 1e-5, 0.1, false, true});

  const Tensor z = empty_like(x), y = empty_like(x), fused_y = empty_like(x), sliced_y = empty_like(x);
  launch(BnApply{x, mean, rstd, gamma, beta, z, axis});
  launch(Unary{z, y, act});
  launch(BnAct{x, mean, rstd, gamma, beta, fused_y, axis, act});
  for_chunks(shape, [&](int64_t i, int64_t n) {
    launch(BnAct{part(x, i, n), mean, rstd, gamma, beta, part(sliced_y, i, n), axis, act});
  });
  REQUIRE(test::bytes(fused_y) == test::bytes(y));
  REQUIRE(test::bytes(sliced_y) == test::bytes(y));

  const Tensor dz = empty_like(x), dx = empty_like(x), fused_dx = empty_like(x), sliced_dx = empty_like(x);
  const Tensor sums = empty({cut.lanes(), 2, channels}, f64), fused_sums = empty_like(sums);
  const Tensor saved = act == UnaryOp::relu ? none : y;
  const auto maybe = [&](int64_t i, int64_t n) { return saved.defined() ? rows(saved, i, n) : View(); };
  launch(UnaryGrad{y, dy, dz, act});
  launch(BnGradSums{dz, x, mean, rstd, sums, axis});
  launch(BnActGradSums{saved, dy, x, mean, rstd, gamma, beta, fused_sums, axis, act});
  REQUIRE(test::bytes(fused_sums) == test::bytes(sums));
  check_lanes(shape, {2, channels}, Dtype::float64, [&](int64_t i, int64_t n, const Sum& lane) {
    launch(BnActGradSums{maybe(i, n), part(dy, i, n), part(x, i, n), mean, rstd, gamma, beta, lane, axis, act});
  });
  launch(Merge{sums, total});
  launch(BnGradApply{dz, x, none, mean, rstd, gamma, total, dx, axis, values});
  launch(BnActGradApply{saved, dy, x, mean, rstd, gamma, beta, total, fused_dx, axis, values, act});
  for_chunks(shape, [&](int64_t i, int64_t n) {
    launch(BnActGradApply{maybe(i, n), part(dy, i, n), part(x, i, n), mean, rstd, gamma, beta, total,
                          part(sliced_dx, i, n), axis, values, act});
  });
  REQUIRE(test::bytes(fused_dx) == test::bytes(dx));
  REQUIRE(test::bytes(sliced_dx) == test::bytes(dx));
}

}  // namespace

TEST_CASE("Batch norm fused with its activation has the bytes of the separate kernels, whole and in slices") {
  const Dtype dtype = GENERATE(Dtype::float32, Dtype::float64);
  const UnaryOp act = GENERATE(UnaryOp::relu, UnaryOp::sigmoid, UnaryOp::tanh);
  for (const int64_t channels : {1, 3, 7, 31, 32, 33, 64, 130}) {
    check_batch_norm({61, channels}, 1, dtype, act, 1);
    check_batch_norm({5, 7, 9, channels}, 3, dtype, act, 1);
    check_batch_norm({5, channels, 7, 9}, 1, dtype, act, 1);
  }
  check_batch_norm({300, 40}, 1, dtype, act, 1);
  check_batch_norm({6, 3, 3, 40}, 3, dtype, act, 1e20);   // float32 computes in float64
  check_batch_norm({6, 3, 3, 40}, 3, dtype, act, 1e-20);  // squares underflow
}
