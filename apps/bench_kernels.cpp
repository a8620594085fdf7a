#include "bench_kernels.h"

#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <random>

#include "clock.h"
#include "statistics.h"
#include "tandem/core/autograd.h"
#include "tandem/core/conv_pack.h"
#include "tandem/core/dispatch.h"
#include "tandem/core/ops.h"
#include "tandem/core/threads.h"

namespace tandem {

namespace {

constexpr double call_seconds = 0.003;  // a kernel runs at least so long in a round
constexpr int64_t tape_nodes = 1000;

double cpu_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec);
}

// ---- the peak: twelve sums in registers, no memory -----------------------------------------------------------------
// In assembly: the program is compiled for any x86-64, and no optimiser may merge or drop the sums.

#define TANDEM_REPEAT(instruction)                               \
  "1:\n"                                                         \
  ".irp sum, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11\n" instruction \
  ".endr\n"                                                      \
  "dec %0\n"                                                     \
  "jnz 1b\n"
#define TANDEM_CLOBBERS                                                                                            \
  "cc", "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm14", \
      "xmm15"

double peak_rate() {
  int64_t turns = 300'000;
  const float one = 1;
  const std::string path = cpu_path();
  const double flops = 12 * 2 * double(turns) * (path == "avx512" ? 16 : path == "avx2" ? 8 : 4);
  const double start = cpu_seconds();
  if (path == "avx512")
    asm volatile("vbroadcastss %1, %%zmm15\n" TANDEM_REPEAT("vfmadd231ps %%zmm15, %%zmm15, %%zmm\\sum\n") "vzeroupper\n"
                 : "+r"(turns)
                 : "m"(one)
                 : TANDEM_CLOBBERS);
  else if (path == "avx2")
    asm volatile("vbroadcastss %1, %%ymm15\n" TANDEM_REPEAT("vfmadd231ps %%ymm15, %%ymm15, %%ymm\\sum\n") "vzeroupper\n"
                 : "+r"(turns)
                 : "m"(one)
                 : TANDEM_CLOBBERS);
  else  // no FMA: a product and a sum
    asm volatile("movss %1, %%xmm15\nshufps $0, %%xmm15, %%xmm15\n" TANDEM_REPEAT(
                     "movaps %%xmm15, %%xmm14\nmulps %%xmm15, %%xmm14\naddps %%xmm14, %%xmm\\sum\n")
                 : "+r"(turns)
                 : "m"(one)
                 : TANDEM_CLOBBERS);
  return flops / (cpu_seconds() - start) / 1e9;
}

// ---- the kernels ---------------------------------------------------------------------------------------------------

struct Case {
  std::string kernel, shape, unit;
  double work;  // flops, bytes or nodes of a call
  std::function<void()> run;
  int64_t calls = 0;                       // a round
  std::vector<double> seconds{}, peaks{};  // a call's, and GF/s around it; one each a round
};

class Cases {
 public:
  Cases() {
    gemm("matmul", 2048, 2048, 2048);
    network("w1", 60, {784, 100, 100, 100, 10});
    network("w2", 128, {784, 512, 256, 128, 10});
    conv(1, 28, 1, 32, 1);
    conv(2, 28, 32, 32, 2);
    conv(3, 14, 32, 64, 1);
    conv(4, 14, 64, 64, 2);
    dense("w3 dense1", 128, 3136, 128, true);
    dense("w3 dense2", 128, 128, 10, true);
    copy({128, 512});
    copy({128, 28, 28, 32});
    norm("w1 bn", {60, 100});
    norm("w2 bn1", {128, 512});
    norm("w3 bn1", {128, 28, 28, 32});
    norm("w3 bn2", {128, 14, 14, 32});
    norm("w3 bn3", {128, 14, 14, 64});
    norm("w3 bn4", {128, 7, 7, 64});
    tape();
  }
  std::vector<Case> take() { return std::move(cases_); }

 private:
  Tensor values(const Shape& shape) {
    std::uniform_real_distribution<float> draw(-1, 1);
    std::vector<float> data(shape.numel());
    for (float& v : data) v = draw(random_);
    return Tensor::from(data, shape);
  }
  void add(const std::string& kernel, const std::string& shape, const std::string& unit, double work,
           std::function<void()> run) {
    cases_.push_back({kernel, shape, unit, work, std::move(run)});
  }
  static std::function<void()> forward(std::function<Tensor()> op) {
    return [op] {
      const NoGrad no_grad;
      op();
    };
  }
  // The gradients of `leaves` alone, from a graph that was built once.
  std::function<void()> backward(std::vector<Tensor> leaves, const std::function<Tensor()>& op) {
    for (Tensor& leaf : leaves) leaf.set_requires_grad(true);
    const Tensor y = op(), dy = values(y.shape());
    return [leaves, y, dy]() mutable {
      for (Tensor& leaf : leaves) leaf.zero_grad();
      y.backward(dy, true);
    };
  }
  // An op of x and w: forward and both gradients.
  void product(const std::string& kernel, const std::string& shape, double flops, const Shape& x_shape,
               const Shape& w_shape, bool with_dx, const std::function<Tensor(const Tensor&, const Tensor&)>& op) {
    const Tensor x = values(x_shape), w = values(w_shape);
    add(kernel + " y", shape, "GF/s", flops, forward([=] { return op(x, w); }));
    const Tensor x_leaf = x.detach(), w_leaf = w.detach();
    if (with_dx) add(kernel + " dx", shape, "GF/s", flops, backward({x_leaf}, [=] { return op(x_leaf, w); }));
    add(kernel + " dw", shape, "GF/s", flops, backward({w_leaf}, [=] { return op(x, w_leaf); }));
  }
  void gemm(const std::string& kernel, int64_t m, int64_t n, int64_t k) {
    const Tensor a = values({m, k}), b = values({k, n});
    add(kernel, fmt::format("{} x {} x {}", m, n, k), "GF/s", 2.0 * double(m * n * k),
        forward([=] { return matmul(a, b); }));
  }
  void dense(const std::string& kernel, int64_t n, int64_t in, int64_t out, bool with_dx) {
    product(kernel, fmt::format("{} x {} -> {}", n, in, out), 2.0 * double(n * in * out), {n, in}, {out, in}, with_dx,
            [](const Tensor& x, const Tensor& w) { return linear(x, w); });
  }
  void network(const std::string& name, int64_t batch, const std::vector<int64_t>& sizes) {
    for (size_t i = 0; i + 1 < sizes.size(); ++i)
      dense(fmt::format("{} dense{}", name, i + 1), batch, sizes[i], sizes[i + 1], i > 0);
  }
  void conv(int number, int64_t side, int64_t in, int64_t out, int64_t stride) {
    const int64_t n = 128, y_side = side / stride;
    const std::string shape = fmt::format("{} x {} x {} -> {}{}", side, side, in, out, stride == 1 ? "" : " /2");
    const double flops = 2.0 * double(y_side * y_side * out * 9 * in);  // an image
    product(fmt::format("w3 conv{}", number), shape, double(n) * flops, {n, side, side, in}, {out, 3, 3, in},
            number > 1,
            [stride](const Tensor& x, const Tensor& w) { return conv2d(x, w, {}, {.stride = stride, .padding = 1}); });

    // The kernels as a compiled step runs them: two images at a time, with packed weights.
    const Window window{3, stride, 1, 1};
    const Tensor x = values({2, side, side, in}), w = values({out, 3, 3, in}), y = values({2, y_side, y_side, out});
    const Tensor dx = values(x.shape()), dw = values(w.shape().insert(0, 1));
    const auto packed = [&](bool turned) {
      const Tensor to = zeros({conv_packed_size(w.dtype(), w.shape(), window, 1, turned)});
      launch(ConvPack{w, to, window, turned});
      return to;
    };
    const auto add_one = [&](const char* which, std::function<void()> run) {
      add(fmt::format("w3 conv{} {}, two", number, which), shape, "GF/s", 2 * flops, std::move(run));
    };
    const Tensor w_y = packed(false), w_dx = packed(true), none;
    add_one("y", [=] { launch(Conv{x, w, none, y, window, 1, Math::fp32, none, none, none, none, false, w_y}); });
    if (number > 1) add_one("dx", [=] { launch(ConvDx{y, w, dx, window, 1, Math::fp32, w_dx}); });
    add_one("dw", [=] { launch(ConvDw{y, x, {dw}, window, 1}); });
  }
  // What memory allows: one tensor read, one written.
  void copy(const Shape& shape) {
    const Tensor x = values(shape);
    add("affine y", to_string(shape), "GB/s", 2.0 * sizeof(float) * double(shape.numel()),
        forward([=] { return affine(x, 2, 1); }));
  }
  void norm(const std::string& kernel, const Shape& shape) {
    const int64_t channels = shape[shape.rank() - 1];
    const Tensor x = values(shape), gamma = ones({channels}), beta = zeros({channels});
    const double bytes = double(sizeof(float)) * double(shape.numel());
    auto op = [=] { return batch_norm(x, gamma, beta, {}); };
    const std::string text = to_string(shape);
    add(kernel + " y", text, "GB/s", 2 * bytes, forward(op));
    add(kernel + " dx", text, "GB/s", 3 * bytes, backward({x, gamma, beta}, op));
  }
  // A chain of ops on one value: without the tape, and with it forward, backward and freed.
  void tape() {
    const auto chain = [](Tensor y) {
      for (int64_t i = 0; i < tape_nodes; ++i) y = affine(y, 1, 0);
      return y;
    };
    Tensor x = values({1});
    add("an op on one value", "", "us", tape_nodes, forward([=] { return chain(x); }));
    Tensor leaf = x.detach();
    leaf.set_requires_grad(true);
    add("tape, a node", "", "us", tape_nodes, [=]() mutable {
      leaf.zero_grad();
      chain(leaf).backward();
    });
  }

  std::vector<Case> cases_;
  std::minstd_rand random_{1};
};

// ---- measuring -----------------------------------------------------------------------------------------------------

double seconds_a_call(Case& c) {
  const double start = cpu_seconds();
  for (int64_t i = 0; i < c.calls; ++i) c.run();
  return (cpu_seconds() - start) / double(c.calls);
}

// Warms the case up and finds how many calls take long enough.
void calibrate(Case& c) {
  c.calls = 1;
  seconds_a_call(c);
  c.calls = std::clamp<int64_t>(int64_t(call_seconds / seconds_a_call(c)) + 1, 1, 100'000);
}

Spread spread(const std::vector<double>& values) {
  return {median(values), *std::min_element(values.begin(), values.end()),
          *std::max_element(values.begin(), values.end())};
}

KernelRow to_row(const Case& c) {
  KernelRow row{c.kernel, c.shape, c.unit, {}};
  std::vector<double> rates, shares;
  for (size_t i = 0; i < c.seconds.size(); ++i) {
    rates.push_back(c.unit == "us" ? 1e6 * c.seconds[i] / c.work : c.work / c.seconds[i] / 1e9);
    shares.push_back(rates[i] / c.peaks[i]);
  }
  row.rate = spread(rates);
  if (c.unit == "GF/s") row.of_peak = spread(shares);
  return row;
}

// The tape's own time: the taped chain less the op's, once forward and once backward.
void subtract_op(Case& taped, const Case& op) {
  for (size_t i = 0; i < taped.seconds.size(); ++i) taped.seconds[i] -= 2 * op.seconds[i];
}

}  // namespace

KernelReport bench_kernels(double seconds) {
  const SingleThreaded one_core;
  std::vector<Case> cases = Cases().take();
  for (Case& c : cases) calibrate(c);
  KernelReport report;
  std::vector<double> peaks;
  const auto start = Clock::now();
  do {
    double before = peak_rate();
    for (Case& c : cases) {
      c.seconds.push_back(seconds_a_call(c));
      const double after = peak_rate();
      peaks.push_back(after);
      c.peaks.push_back((before + after) / 2);
      before = after;
    }
    ++report.rounds;
  } while (seconds_since(start) < seconds);
  subtract_op(cases[cases.size() - 1], cases[cases.size() - 2]);
  report.peak = spread(peaks);
  for (const Case& c : cases) report.rows.push_back(to_row(c));
  return report;
}

}  // namespace tandem
