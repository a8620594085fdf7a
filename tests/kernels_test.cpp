// What the op tests cannot see: formulas against float64, one result whatever the thread count, numerics that the
// kernels promise beyond their formulas, and the thread pool itself.
#include <pthread.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <limits>
#include <thread>
#include <tuple>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"
#include "tandem/core/ops.h"
#include "tandem/core/parallel.h"
#include "tandem/core/scalar_math.h"
#include "tandem/core/threads.h"

using namespace tandem;

namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

// Restores the thread count that the test found.
struct Threads {
  int before = threads();
  ~Threads() { set_threads(before); }
};

// The largest error of f in units in the last place of the float32 result, over a sample of all float32 numbers.
template <class F, class G>
double largest_ulps(const F& f, const G& exact) {
  double worst = 0;
  for (uint64_t bits = 0; bits < (uint64_t{1} << 32); bits += 4099) {
    const float x = __builtin_bit_cast(float, static_cast<uint32_t>(bits));
    if (std::isnan(x)) continue;
    const double want = exact(static_cast<double>(x));
    const float rounded = static_cast<float>(want), got = f(x);
    if (std::isinf(rounded)) {
      if (got != rounded) worst = kInf;
      continue;
    }
    const float magnitude = std::fabs(rounded);
    worst = std::max(worst, std::fabs(got - want) / (std::nextafter(magnitude, kInf) - magnitude));
  }
  return worst;
}

Tensor f64(const Shape& shape) { return empty(shape, {Dtype::float64}); }

}  // namespace

TEST_CASE("Philox4x32-10 gives Random123's known answers") {
  const auto words = [](uint64_t key, uint64_t lo, uint64_t hi) {
    const Philox p = philox4x32(key, lo, hi);
    return std::vector<uint32_t>(p.v, p.v + 4);
  };
  const uint64_t ones = ~uint64_t{0};
  CHECK(words(0, 0, 0) == std::vector<uint32_t>{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  CHECK(words(ones, ones, ones) == std::vector<uint32_t>{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  CHECK(words(0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e) ==
        std::vector<uint32_t>{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

TEST_CASE("exp, sigmoid and tanh of float32 are right to about 2 ulp everywhere") {
  CHECK(largest_ulps([](float x) { return scalar::exp(x); }, [](double x) { return std::exp(x); }) < 1.0);
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  CHECK(largest_ulps([](float x) { return scalar::sigmoid(x); }, sigmoid) < 2.2);
  CHECK(largest_ulps([](float x) { return scalar::tanh(x); }, [](double x) { return std::tanh(x); }) < 1.5);
  CHECK(scalar::exp(kInf) == kInf);
  CHECK(scalar::exp(-kInf) == 0);
  CHECK(scalar::exp(0.0f) == 1);
  CHECK(scalar::sigmoid(-kInf) == 0);
  CHECK(scalar::sigmoid(kInf) == 1);
  CHECK(scalar::tanh(-kInf) == -1);
  for (const float y : {scalar::exp(kNan), scalar::exp(-kNan), scalar::sigmoid(kNan), scalar::tanh(kNan)}) {
    CHECK(std::isnan(y));
  }
}

TEST_CASE("Vectorised kernels give the formula's bits for every element") {
  const Tensor x = test::random({1003}, 1, Dtype::float32, -30, 30);  // blocks of any width, and a tail
  const Tensor e = exp(x), s = sigmoid(x), t = tanh(x);
  for (int64_t i = 0; i < x.numel(); ++i) {
    const float value = x.data<float>()[i];
    REQUIRE(e.data<float>()[i] == scalar::exp(value));
    REQUIRE(s.data<float>()[i] == scalar::sigmoid(value));
    REQUIRE(t.data<float>()[i] == scalar::tanh(value));
  }
}

namespace {

// The bytes of everything that the kernels write which sum over rows, cut their work or draw random numbers.
class Outputs {
 public:
  void keep(const Tensor& t) {
    const std::vector<uint8_t> more = test::bytes(t);
    bytes.insert(bytes.end(), more.begin(), more.end());
  }
  std::vector<uint8_t> bytes;
};

void run_dense(Outputs& out) {
  const Tensor x = test::random({700, 65}, 1), dy = test::random({700, 300}, 2), w = test::random({300, 65}, 3);
  const int64_t lanes = chunking(x.shape()).lanes();
  Tensor y = empty({700, 300}), dx = empty_like(x), dw = empty({lanes, 300, 65}), db = f64({lanes, 300});
  Tensor total = empty({300, 65}), squares = zeros({1}, {Dtype::float64});
  launch(Linear{x, w, test::random({300}, 4), y});
  launch(LinearDx{dy, w, dx});
  launch(LinearDw{dy, x, dw});
  launch(SumRows{dy, db});
  launch(Merge{dw, total});
  launch(SumSquares{dy, squares});
  for (const Tensor& t : {y, dx, dw, db, total, squares, sum(dy, {1}), sum(dy, {0}), mean(dy), max(dy, {1}), exp(dy),
                          transpose(dy), matmul(dy, w), expand(w.reshape({300, 1, 65}), {300, 9, 65}), softmax(dy),
                          dropout(dy, 0.3, 5, zeros({1}, {Dtype::int64})), dy * slice(dy, 0, 3, 4)}) {
    out.keep(t);
  }
}

void run_images(Outputs& out) {
  const Tensor x = test::random({21, 9, 8, 6}, 1), w = test::random({10, 3, 3, 3}, 2);
  const Window window{3, {2, 1}, 1, 1};
  const int64_t lanes = chunking(x.shape()).lanes();
  Tensor y = empty({21, 5, 8, 10}), dx = empty_like(x), dw = empty({lanes, 10, 3, 3, 3}), db = f64({lanes, 10});
  launch(Conv{x, w, test::random({10}, 3), y, window, 2});
  launch(ConvDx{y, w, dx, window, 2});
  launch(ConvDw{y, x, dw, window, 2});
  launch(SumRows{y, db});
  for (const Tensor& t : {y, dx, dw, db, max_pool2d(x), avg_pool2d(x)}) out.keep(t);
  Tensor from_max = empty_like(x), from_avg = empty_like(x), pooled = empty({21, 4, 4, 6});
  Tensor index = empty({21, 4, 4, 6}, {Dtype::int32});
  launch(MaxPool{x, pooled, index, {2, 2, 2, 2}});
  launch(MaxPoolGrad{pooled, index, from_max});
  launch(AvgPoolGrad{pooled, from_avg, {2, 2, 2, 2}, true});
  for (const Tensor& t : {from_max, from_avg}) out.keep(t);
}

void run_batch_norm(Outputs& out, const Shape& shape, int axis) {
  const int64_t channels = shape[axis], values = shape.numel() / channels;
  const Chunking cut = chunking(shape);
  const Tensor x = test::random(shape, 1), dy = test::random(shape, 2), gamma = test::random({channels}, 3);
  Tensor moments = f64({cut.chunks(), 2, channels}), sums = f64({cut.lanes(), 2, channels}), total = f64({2, channels});
  Tensor mean = f64({channels}), rstd = f64({channels}), y = empty_like(x), dx = empty_like(x);
  const Tensor none;
  launch(BnMoments{x, none, moments, none, axis});
  launch(BnFinish{moments, none, mean, rstd, none, none, none, none, cut.n, cut.rows, values / cut.n, 1e-5, 0.1, false, true});
  launch(BnApply{x, mean, rstd, gamma, none, y, axis});
  launch(BnGradSums{dy, x, mean, rstd, sums, axis});
  launch(Merge{sums, total});
  launch(BnGradApply{dy, x, none, mean, rstd, gamma, total, dx, axis, values});
  for (const Tensor& t : {moments, mean, rstd, y, sums, total, dx}) out.keep(t);
}

std::vector<uint8_t> everything() {
  Outputs out;
  run_dense(out);
  run_images(out);
  run_batch_norm(out, {21, 9, 8, 67}, 3);
  run_batch_norm(out, {21, 5, 9, 7}, 1);
  run_batch_norm(out, {700, 33}, 1);
  return out.bytes;
}

}  // namespace

TEST_CASE("Every kernel gives the same bytes on 1 to 8 threads") {
  const Threads restore;
  set_threads(1);
  const std::vector<uint8_t> expected = everything();
  for (int n = 2; n <= 8; ++n) {
    set_threads(n);
    REQUIRE(threads() == n);
    for (int repeat = 0; repeat < 3; ++repeat) REQUIRE(everything() == expected);
  }
}

TEST_CASE("Products with an empty side") {
  const Tensor a = empty({2, 0}), b = empty({0, 3}), bias = Tensor::from(std::vector<float>{1, 2, 3}, {3});
  CHECK(matmul(a, b).to_vector<float>() == std::vector<float>(6, 0.0f));
  CHECK(linear(a, transpose(b), bias).to_vector<float>() == std::vector<float>{1, 2, 3, 1, 2, 3});
  CHECK(matmul(empty({0, 4}), empty({4, 3})).shape() == Shape{0, 3});
  CHECK(matmul(empty({2, 4}), empty({4, 0})).shape() == Shape{2, 0});
}

TEST_CASE("Batch norm turns a constant channel into exactly beta") {
  const Dtype dtype = GENERATE(Dtype::float32, Dtype::float64);
  const double value = GENERATE(0.1, 1e8, 1e10 / 3, -3.3e-20);
  const double eps = GENERATE(1e-5, 0.0);
  const Shape shape = GENERATE(Shape{7, 3}, Shape{300, 3}, Shape{5, 3, 11}, Shape{5, 4, 3});
  const Tensor beta = test::random({3}, 1, dtype);
  const int axis = shape.rank() == 3 && shape[1] == 3 ? 1 : shape.rank() - 1;
  const Tensor y = batch_norm(full(shape, value, {dtype}), test::random({3}, 2, dtype), beta, {},
                              {.eps = eps, .channel_axis = axis});
  Tensor expected = axis == 1 && shape.rank() == 3 ? expand(beta.reshape({3, 1}), shape) : expand(beta, shape);
  CHECK(test::bytes(y) == test::bytes(expected));
}

TEST_CASE("Batch statistics survive large means, huge scales and a NaN next door") {
  const int64_t n = 4096, c = 3;
  std::vector<float> data(n * c);
  const Tensor noise = test::random({n, c}, 1);
  const auto normalised = [&](double mean, double scale) {
    for (int64_t i = 0; i < n * c; ++i) data[i] = static_cast<float>(mean + scale * noise.data<float>()[i]);
    data[0] = kNan;  // channel 0 is lost, the others are not
    const Tensor y = batch_norm(Tensor::from(data, {n, c}), {}, {}, {}, {.eps = 0});
    double worst = 0;
    for (int64_t j = 1; j < c; ++j) {
      long double sum = 0, squares = 0;
      for (int64_t i = 0; i < n; ++i) sum += data[i * c + j];
      for (int64_t i = 0; i < n; ++i) squares += (data[i * c + j] - sum / n) * (data[i * c + j] - sum / n);
      for (int64_t i = 0; i < n; ++i) {
        const double want = static_cast<double>((data[i * c + j] - sum / n) / std::sqrt(squares / n));
        worst = std::max(worst, std::fabs(y.data<float>()[i * c + j] - want));
      }
    }
    CHECK(std::isnan(y.data<float>()[3]));
    return worst;
  };
  CHECK(normalised(0, 1) < 2e-7);
  CHECK(normalised(1e6, 1) < 2e-7);
  CHECK(normalised(0, 1e25) < 2e-7);
  CHECK(normalised(0, 1e-25) < 2e-7);
}

TEST_CASE("The moments of float32 are those of float64 to a few units in the last place") {
  const auto [shape, axis] = GENERATE(std::pair{Shape{60, 5}, 1}, std::pair{Shape{2, 28, 28, 33}, 3},
                                      std::pair{Shape{2, 9, 28, 27}, 1}, std::pair{Shape{3, 2, 2, 40}, 3});
  const auto [mean, spread, outlier] = GENERATE(
      std::tuple{0.0, 1.0, 0.0}, std::tuple{-1e6, 1.0, 0.0}, std::tuple{1e4, 1e-3, 0.0}, std::tuple{0.0, 1.0, 1e5},
      std::tuple{5.0, 0.0, 1e6}, std::tuple{0.0, 1e-22, 0.0}, std::tuple{0.0, 1e20, 0.0});
  std::vector<float> data = test::random(shape, 1, Dtype::float32, mean - spread, mean + spread).to_vector<float>();
  for (size_t i = 0; i < data.size(); i += 1009) data[i] += static_cast<float>(outlier);  // also the very first value
  const Tensor x = Tensor::from(data, shape);
  const int64_t channels = shape[axis];
  const Chunking cut = chunking(shape);
  const auto moments = [&, axis = axis](const Tensor& of) {
    const Tensor slots = f64({cut.chunks(), 2, channels}), none;
    launch(BnMoments{of, none, slots, none, axis});
    return slots.to_vector<double>();
  };
  const std::vector<double> got = moments(x), want = moments(x.to(Dtype::float64));
  for (int64_t chunk = 0; chunk < cut.chunks(); ++chunk) {
    const int64_t rows = cut.chunk_begin(chunk + 1) - cut.chunk_begin(chunk);
    const double n = static_cast<double>(rows * (x.numel() / shape[0] / channels));
    for (int64_t c = 0; c < channels; ++c) {
      const size_t i = static_cast<size_t>(chunk * 2 * channels + c), j = i + static_cast<size_t>(channels);
      CHECK(std::fabs(got[i] - want[i]) <= 1e-7 * std::sqrt(want[j] / n));
      CHECK(std::fabs(got[j] - want[j]) <= 5e-7 * want[j]);
    }
  }
}

TEST_CASE("Gradient sums beyond float32's range are summed in float64") {
  const Tensor x = full({40, 2}, 1e20), dy = full({40, 2}, 1e25), zero = zeros({2}, {Dtype::float64});
  const Tensor sums = f64({1, 2, 2});
  launch(BnGradSums{dy, x, zero, ones({2}, {Dtype::float64}), sums, 1});
  CHECK(sums.to_vector<double>()[2] == Approx(40e45).epsilon(1e-6));
}

TEST_CASE("Batch statistics take means whose square overflows") {
  const std::vector<double> data{1e160 + 1e150, 1e160 - 1e150, 1e160 + 1e150, 1e160 - 1e150};
  const std::vector<double> y = batch_norm(Tensor::from(data, {4, 1}), {}, {}, {}).to_vector<double>();
  CHECK(std::fabs(y[0] - 1) < 1e-5);
  CHECK(std::fabs(y[1] + 1) < 1e-5);
}

TEST_CASE("A window that lies in the padding pools nothing") {
  const Tensor x = ones({1, 1, 1, 1});
  Tensor y = empty({1, 1, 1, 1}), index = empty({1, 1, 1, 1}, {Dtype::int32}), dx = empty_like(x);
  launch(MaxPool{x, y, index, {2, 1, 1, 2}});  // looks at -1 and 1 along both axes
  CHECK(y.item() == -kInf);
  launch(MaxPoolGrad{ones({1, 1, 1, 1}), index, dx});
  CHECK(dx.item() == 0);
}

// ---- threads -----------------------------------------------------------------------------------------

TEST_CASE("parallel_for runs every item once") {
  const Threads restore;
  set_threads(4);
  for (const int64_t n : {0, 1, 2, 3, 1000}) {
    std::vector<std::atomic<int>> seen(static_cast<size_t>(n));
    parallel_for(n, [&](int64_t i) { ++seen[static_cast<size_t>(i)]; });
    for (const auto& count : seen) REQUIRE(count == 1);
  }
}

TEST_CASE("An exception in a parallel item reaches the caller, and the pool goes on") {
  const Threads restore;
  set_threads(4);
  for (int repeat = 0; repeat < 20; ++repeat) {
    CHECK_THROWS_WITH(parallel_for(100, [](int64_t i) {
      if (i == 37) throw ValueError("item 37");
    }), "item 37");
    std::atomic<int64_t> sum{0};
    parallel_for(100, [&](int64_t i) { sum += i; });
    REQUIRE(sum == 4950);
  }
}

TEST_CASE("Threads that cannot be started are asked for once, and an exception in that leaves the pool free") {
  const Threads restore;
  set_threads(2);
  parallel_for(2, [](int64_t) {});
  pthread_attr_t standard, huge;  // new threads get a stack that no machine has
  REQUIRE(pthread_getattr_default_np(&standard) == 0);
  REQUIRE(pthread_attr_init(&huge) == 0);
  REQUIRE(pthread_attr_setstacksize(&huge, size_t{1} << 50) == 0);
  REQUIRE(pthread_setattr_default_np(&huge) == 0);
  int warnings = 0;
  set_warning_handler([&](const std::string&) {
    ++warnings;
    throw ValueError("the handler's own");
  });
  set_threads(64);
  CHECK_THROWS_AS(parallel_for(64, [](int64_t) {}), ValueError);
  std::atomic<int> ran{0};
  parallel_for(64, [&](int64_t) { ++ran; });
  set_warning_handler({});
  pthread_setattr_default_np(&standard);
  pthread_attr_destroy(&huge);
  CHECK(ran == 64);
  CHECK(warnings == 1);

  // Two items that wait for one another: the pool's thread takes one of them.
  set_threads(2);
  std::atomic<int> arrived{0};
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  parallel_for(2, [&](int64_t) {
    ++arrived;
    while (arrived < 2 && std::chrono::steady_clock::now() < patience) std::this_thread::yield();
    if (arrived < 2) ran = 0;
  });
  CHECK(ran == 64);
}

TEST_CASE("Nested and single-threaded parallel_for stay on their thread") {
  const Threads restore;
  set_threads(4);
  std::atomic<int> strays{0};
  const auto check_inline = [&] {
    const std::thread::id self = std::this_thread::get_id();
    parallel_for(50, [&](int64_t) { strays += std::this_thread::get_id() != self; });
  };
  parallel_for(8, [&](int64_t) { check_inline(); });
  {
    const SingleThreaded one;
    check_inline();
  }
  set_threads(1);
  check_inline();
  CHECK(strays == 0);
}

TEST_CASE("Host threads share the pool without waiting for one another") {
  const Threads restore;
  set_threads(3);
  std::atomic<int64_t> sum{0};
  std::vector<std::thread> hosts;
  for (int h = 0; h < 4; ++h) {
    hosts.emplace_back([&] {
      for (int repeat = 0; repeat < 200; ++repeat) parallel_for(10, [&](int64_t i) { sum += i; });
    });
  }
  for (std::thread& host : hosts) host.join();
  CHECK(sum == 4 * 200 * 45);
}

TEST_CASE("set_threads refuses less than one") {
  CHECK(test::error_of([] { set_threads(0); }) == "set_threads: expected at least 1 thread, got 0");
  CHECK(available_cores() >= 1);
  const std::string path = cpu_path();
  CHECK((path == "x86-64" || path == "avx2" || path == "avx512"));
  CHECK(blas_description().rfind("OpenBLAS ", 0) == 0);
}
