// The op table: what each op refuses, word for word.
#include <cmath>

#include "helpers.h"
#include "op_cases.h"

// clang-format off: one entry of the table reads as name, call, text.
namespace tandem::test {
namespace {

using Rows = std::vector<OpError>;

Tensor of(const Shape& shape, Dtype dtype) { return ones(shape, {.dtype = dtype, .device = test_device()}); }

// An op that only computes with floating numbers, given int32; `says` where the message names another op.
OpError floating_only(const std::string& op, Tensor (*f)(const Tensor&), const Shape& shape,
                      const std::string& operand = "x", const std::string& says = "") {
  return {op + ", of int32", [=](Dtype) { f(of(shape, Dtype::int32)); },
          (says.empty() ? op : says) + ": expected " + operand + " of float32 or float64, got " + operand +
              to_string(shape) + " of int32; convert it with to()"};
}

Rows dtype_errors() {
  Rows rows = {
      floating_only("affine", [](const Tensor& x) { return affine(x, 2, 0); }, {3}),
      floating_only("neg", neg, {3}, "x", "affine"),
      floating_only("exp", exp, {3}),
      floating_only("log", log, {3}),
      floating_only("sqrt", sqrt, {3}),
      floating_only("abs", abs, {3}),
      floating_only("relu", relu, {3}),
      floating_only("sigmoid", sigmoid, {3}),
      floating_only("tanh", tanh, {3}),
      floating_only("sum", [](const Tensor& x) { return sum(x); }, {3}),
      floating_only("mean", [](const Tensor& x) { return mean(x); }, {3}),
      floating_only("max", [](const Tensor& x) { return max(x); }, {3}),
      floating_only("expand", [](const Tensor& x) { return expand(x, {2, 3}); }, {3}),
      floating_only("matmul", [](const Tensor& x) { return matmul(x, x); }, {3, 3}, "a"),
      floating_only("linear", [](const Tensor& x) { return linear(x, x); }, {3, 3}),
      floating_only("conv2d", [](const Tensor& x) { return conv2d(x, x); }, {1, 3, 3, 1}),
      floating_only("max_pool2d", [](const Tensor& x) { return max_pool2d(x); }, {1, 3, 3, 1}),
      floating_only("avg_pool2d", [](const Tensor& x) { return avg_pool2d(x); }, {1, 3, 3, 1}),
      floating_only("global_avg_pool", global_avg_pool, {1, 3, 3, 1}, "x", "mean"),
      floating_only("batch_norm", [](const Tensor& x) { return batch_norm(x, {}, {}, {}); }, {3, 2}),
      floating_only("softmax", [](const Tensor& x) { return softmax(x); }, {3, 2}),
      floating_only("log_softmax", [](const Tensor& x) { return log_softmax(x); }, {3, 2}),
      floating_only("cross_entropy", [](const Tensor& x) { return cross_entropy(x, x); }, {3, 2}, "logits"),
      floating_only("dropout",
                    [](const Tensor& x) { return dropout(x, 0.5, 1, zeros({}, {.dtype = Dtype::int64, .device = test_device()})); }, {3}),
  };
  using Binary = Tensor (*)(const Tensor&, const Tensor&);
  for (auto [op, f] : {std::pair<std::string, Binary>{"add", add}, {"sub", sub}, {"mul", mul}, {"div", div},
                       {"maximum", maximum}, {"minimum", minimum}}) {
    rows.push_back({op + ", shapes", [f = f](Dtype t) { f(of({2, 3}, t), of({2, 4}, t)); },
                    op + ": expected shapes that broadcast, got a[2, 3] and b[2, 4] (3 vs 4)"});
    rows.push_back({op + ", of int32", [f = f](Dtype t) { f(of({2}, t), of({2}, Dtype::int32)); },
                    op + ": expected b of float32 or float64, got b[2] of int32; convert it with to()"});
  }
  rows.push_back({"add, two dtypes", [](Dtype) { add(of({2}, Dtype::float32), of({3}, Dtype::float64)); },
                  "add: expected one dtype, got a[2] of float32 and b[3] of float64; convert one with to()"});
  rows.push_back({"add, an empty tensor", [](Dtype t) { add({}, of({2}, t)); },
                  "tensor: an empty Tensor was used; give it values first"});
  return rows;
}

Rows shape_errors() {
  return {
      {"sum, axis", [](Dtype t) { sum(of({2, 3}, t), {2}); }, "sum: expected an axis in [-2, 2), got 2 for x[2, 3]"},
      {"mean, axis twice", [](Dtype t) { mean(of({2, 3}, t), {1, -1}); }, "mean: axis -1 is named twice for x[2, 3]"},
      {"max, of nothing", [](Dtype t) { max(of({0, 3}, t)); },
       "max: expected at least one value to choose from, got x[0, 3]"},
      {"argmax, rank", [](Dtype t) { argmax(of({3}, t)); }, "argmax: expected x[N, C] with C >= 1, got x[3]"},
      {"reshape, count", [](Dtype t) { reshape(of({2, 3}, t), {4, 2}); },
       "reshape: expected a shape of 6 elements for x[2, 3], got [4, 2] (8)"},
      {"reshape, negative", [](Dtype t) { reshape(of({2, 3}, t), {-2, 3}); },
       "shape: expected extents >= 0, got -2 for axis 0"},
      {"reshape, two open", [](Dtype t) { reshape(of({2, 3}, t), {-1, 2, -1}); },
       "shape: expected extents >= 0, got -1 for axis 2"},
      {"reshape, not divisible", [](Dtype t) { reshape(of({2, 3}, t), {-1, 4}); },
       "reshape: expected extents that divide the 6 elements of x[2, 3], got [-1, 4]"},
      {"reshape, open beside 0", [](Dtype t) { reshape(of({2, 0}, t), {-1, 0}); },
       "reshape: expected extents that divide the 0 elements of x[2, 0], got [-1, 0]"},
      {"permute, twice", [](Dtype t) { permute(of({2, 3}, t), {0, 0}); },
       "permute: expected each of the 2 axes of x[2, 3] once, got [0, 0]"},
      {"permute, too few", [](Dtype t) { permute(of({2, 3}, t), {0}); },
       "permute: expected each of the 2 axes of x[2, 3] once, got [0]"},
      {"transpose, rank", [](Dtype t) { transpose(of({2, 3, 4}, t)); }, "transpose: expected a matrix, got x[2, 3, 4]"},
      {"concat, none", [](Dtype) { concat({}); }, "concat: expected at least one tensor, got none"},
      {"concat, extents", [](Dtype t) { concat({of({2, 3}, t), of({2, 4}, t)}); },
       "concat: expected equal extents but for axis 0, got [2, 3] and [2, 4]"},
      {"concat, dtypes", [](Dtype) { concat({of({2}, Dtype::float32), of({2}, Dtype::int32)}); },
       "concat: expected one dtype and device, got float32 on {device} and int32 on {device}"},
      {"slice, beyond", [](Dtype t) { slice(of({2, 3}, t), 1, 2, 4); },
       "slice: expected 0 <= begin <= end <= 3 on axis 1 of x[2, 3], got [2, 4)"},
      {"slice, backwards", [](Dtype t) { slice(of({2, 3}, t), -1, 2, 1); },
       "slice: expected 0 <= begin <= end <= 3 on axis 1 of x[2, 3], got [2, 1)"},
      {"gather_rows, row", [](Dtype t) { gather_rows(of({2, 3}, t), Tensor::from(std::vector<int32_t>{1, 2}, {2}, test_device())); },
       "gather_rows: expected rows in [0, 2) of x, got 2"},
      {"gather_rows, index dtype", [](Dtype t) { gather_rows(of({2, 3}, t), of({2}, t)); },
       "gather_rows: expected index of int32, got index[2] of {dtype}; convert it with to()"},
      {"gather_rows, index rank", [](Dtype t) { gather_rows(of({2, 3}, t), of({2, 1}, Dtype::int32)); },
       "gather_rows: expected x[N, ...] and index[M], got x[2, 3] and index[2, 1]"},
      {"expand, extent", [](Dtype t) { expand(of({2, 3}, t), {2, 4}); },
       "expand: expected a shape that x[2, 3] broadcasts to, got [2, 4]"},
      {"matmul, inner extents", [](Dtype t) { matmul(of({32, 784}, t), of({512, 10}, t)); },
       "matmul: expected a[M, K] and b[K, N], got a[32, 784] and b[512, 10] (K: 784 vs 512)"},
      {"matmul, rank", [](Dtype t) { matmul(of({32, 7}, t), of({7}, t)); },
       "matmul: expected a[M, K] and b[K, N], got a[32, 7] and b[7]"},
      {"linear, inner extents", [](Dtype t) { linear(of({32, 784}, t), of({10, 512}, t)); },
       "linear: expected x[N, I] and weight[O, I], got x[32, 784] and weight[10, 512] (I: 784 vs 512)"},
      {"linear, bias", [](Dtype t) { linear(of({2, 3}, t), of({4, 3}, t), of({3}, t)); },
       "linear: expected bias[4] for weight[4, 3], got bias[3]"},
      {"linear, dtype of the bias", [](Dtype t) { linear(of({2, 3}, t), of({4, 3}, t), of({4}, Dtype::int32)); },
       "linear: expected bias of float32 or float64, got bias[4] of int32; convert it with to()"},
  };
}

Rows image_errors() {
  const auto conv = [](const Shape& x, const Shape& weight, const Conv2dOptions& options, const Shape& bias = {}) {
    return [=](Dtype t) { conv2d(of(x, t), of(weight, t), bias.rank() ? of(bias, t) : Tensor(), options); };
  };
  const auto pool = [](const Shape& x, const Pool2dOptions& options) {
    return [=](Dtype t) { max_pool2d(of(x, t), options); };
  };
  const auto mean_pool = [](const Shape& x, const Pool2dOptions& options) {
    return [=](Dtype t) { avg_pool2d(of(x, t), options); };
  };
  return {
      {"conv2d, rank", conv({8, 8, 3}, {4, 3, 3, 3}, {}),
       "conv2d: expected x[N, H, W, C] and weight[O, kh, kw, C/groups], got x[8, 8, 3] and weight[4, 3, 3, 3]"},
      {"conv2d, channels", conv({2, 8, 8, 3}, {4, 3, 3, 5}, {}),
       "conv2d: expected x[N, H, W, 5] for weight[4, 3, 3, 5] and 1 groups, got x[2, 8, 8, 3] (C: 5 vs 3)"},
      {"conv2d, groups", conv({2, 8, 8, 4}, {4, 3, 3, 1}, {.groups = 3}),
       "conv2d: expected groups >= 1 that divide C and O, got 3 groups for C = 4, O = 4"},
      {"conv2d, no groups", conv({2, 8, 8, 4}, {4, 3, 3, 1}, {.groups = 0}),
       "conv2d: expected groups >= 1 that divide C and O, got 0 groups for C = 4, O = 4"},
      {"conv2d, too small", conv({2, 2, 8, 3}, {4, 3, 3, 3}, {.dilation = 2}),
       "conv2d: expected an input of at least 5 along H for a window of 5 with padding 0, got 2"},
      {"conv2d, stride 0", conv({2, 8, 8, 3}, {4, 3, 3, 3}, {.stride = 0}),
       "conv2d: expected kernel, stride and dilation in [1, 1000000] and padding in [0, 1000000], "
       "got kernel 3, stride 0, dilation 1, padding 0"},
      {"conv2d, padding near the end of int64", conv({2, 8, 8, 3}, {4, 3, 3, 3}, {.padding = INT64_MAX / 2}),
       "conv2d: expected kernel, stride and dilation in [1, 1000000] and padding in [0, 1000000], "
       "got kernel 3, stride 1, dilation 1, padding 4611686018427387903"},
      {"conv2d, dilation near the end of int64", conv({2, 8, 8, 3}, {4, 3, 3, 3}, {.dilation = {1, INT64_MAX}}),
       "conv2d: expected kernel, stride and dilation in [1, 1000000] and padding in [0, 1000000], "
       "got kernel 3, stride 1, dilation 1x9223372036854775807, padding 0"},
      {"conv2d, negative padding", conv({2, 8, 8, 3}, {4, 3, 3, 3}, {.padding = {0, -1}}),
       "conv2d: expected kernel, stride and dilation in [1, 1000000] and padding in [0, 1000000], "
       "got kernel 3, stride 1, dilation 1, padding 0x-1"},
      {"conv2d, bias", conv({2, 8, 8, 3}, {4, 3, 3, 3}, {}, {3}),
       "conv2d: expected bias[4] for weight[4, 3, 3, 3], got bias[3]"},
      {"max_pool2d, rank", pool({8, 8, 3}, {}), "max_pool2d: expected x[N, H, W, C], got x[8, 8, 3]"},
      {"max_pool2d, padding", pool({1, 8, 8, 3}, {.kernel = 3, .padding = 2}),
       "max_pool2d: expected a padding of at most half the kernel, got 2 for a kernel of 3"},
      {"max_pool2d, stride", pool({1, 8, 8, 3}, {.stride = -1}),
       "max_pool2d: expected kernel, stride and dilation in [1, 1000000] and padding in [0, 1000000], "
       "got kernel 2, stride -1, dilation 1, padding 0"},
      {"max_pool2d, stride near the end of int64", pool({1, 8, 8, 3}, {.stride = INT64_MAX, .ceil_mode = true}),
       "max_pool2d: expected kernel, stride and dilation in [1, 1000000] and padding in [0, 1000000], "
       "got kernel 2, stride 9223372036854775807, dilation 1, padding 0"},
      {"max_pool2d, too small", pool({1, 8, 2, 3}, {.kernel = 3}),
       "max_pool2d: expected an input of at least 3 along W for a window of 3 with padding 0, got 2"},
      {"max_pool2d, positions beyond int32", pool({0, 1 << 16, 1 << 15, 1}, {.kernel = 1}),
       "max_pool2d: expected images of fewer than 2^31 pixels, got x[0, 65536, 32768, 1]"},
      {"avg_pool2d, rank", mean_pool({8, 8}, {}), "avg_pool2d: expected x[N, H, W, C], got x[8, 8]"},
      {"avg_pool2d, kernel", mean_pool({1, 8, 8, 3}, {.kernel = 0}),
       "avg_pool2d: expected kernel, stride and dilation in [1, 1000000] and padding in [0, 1000000], "
       "got kernel 0, stride 0, dilation 1, padding 0"},
      {"avg_pool2d, dilation", mean_pool({1, 8, 8, 3}, {.dilation = 2}),
       "avg_pool2d: expected dilation 1, got 2"},
      {"global_avg_pool, rank", [](Dtype t) { global_avg_pool(of({8, 3}, t)); },
       "global_avg_pool: expected x[N, H, W, C], got x[8, 3]"},
  };
}

OpError batch_norm_error(const std::string& what, const std::string& text, const Shape& x, const Shape& channels,
                         const BatchNormOptions& options, bool tracked = true) {
  return {"batch_norm, " + what,
          [=](Dtype t) {
            RunningStats running;
            if (tracked) running = {of(channels, t), of(channels, t), of({}, Dtype::int64), {}};
            batch_norm(of(x, t), of(channels, t), of(channels, t), running, options);
          },
          "batch_norm: " + text};
}

Rows norm_errors() {
  return {
      batch_norm_error("one axis", "expected 2 to 5 axes (batch, channels, ...), got x[3] (1 axes)", {3}, {3}, {}),
      batch_norm_error("six axes", "expected 2 to 5 axes (batch, channels, ...), got x[1, 2, 1, 1, 1, 3] (6 axes)",
                       {1, 2, 1, 1, 1, 3}, {3}, {}),
      batch_norm_error("the batch as channels", "expected channels on another axis than 0, the batch",
                       {4, 3}, {4}, {.channel_axis = 0}),
      batch_norm_error("axis", "expected an axis in [-2, 2), got 2 for x[4, 3]", {4, 3}, {3}, {.channel_axis = 2}),
      batch_norm_error("channels", "expected gamma[5] for the 5 channels on axis 1 of x[10, 5, 32, 32], got gamma[3]",
                       {10, 5, 32, 32}, {3}, {.channel_axis = 1}),
      batch_norm_error("one value",
                       "training needs at least 2 values per channel, x[1, 10] has 1; "
                       "use a larger batch or eval(). Nothing was updated.",
                       {1, 10}, {10}, {}),
      batch_norm_error("no values",
                       "training needs at least 2 values per channel, x[0, 10] has 0; "
                       "use a larger batch or eval(). Nothing was updated.",
                       {0, 10}, {10}, {}),
      batch_norm_error("no values, Keras",
                       "training needs at least 1 value per channel, x[0, 10] has 0; "
                       "use a larger batch or eval(). Nothing was updated.",
                       {0, 10}, {10}, {.allow_one_value = true}),
      {"batch_norm, mask", [](Dtype t) { batch_norm(of({4, 5, 3}, t), {}, {}, {}, {}, of({4, 3}, t)); },
       "batch_norm: expected mask[4, 5] for x[4, 5, 3], got mask[4, 3]"},
      {"batch_norm, one value in the mask",
       [](Dtype t) { batch_norm(of({3, 2}, t), {}, {}, {}, {}, Tensor::from(std::vector<uint8_t>{0, 1, 0}, {3}, test_device())); },
       "batch_norm: training needs at least 2 values per channel, x[3, 2] has 1 in the mask; use a larger batch or "
       "eval(). Nothing was updated."},
      {"layer_norm, axes", [](Dtype t) { layer_norm(of({4, 3}, t), {4}); },
       "layer_norm: expected x to end with the axes [4], got x[4, 3]"},
      {"layer_norm, gamma", [](Dtype t) { layer_norm(of({4, 3}, t), {3}, of({4}, t)); },
       "layer_norm: expected gamma[3] for x[4, 3], got gamma[4]"},
      {"group_norm, groups", [](Dtype t) { group_norm(of({4, 6}, t), 4); },
       "group_norm: expected a number of groups that divides the 6 channels of x[4, 6], got 4"},
      {"group_norm, rank", [](Dtype t) { group_norm(of({4}, t), 1); }, "group_norm: expected x[N, ..., C], got x[4]"},
      {"group_norm, beta", [](Dtype t) { group_norm(of({4, 6}, t), 2, {}, of({3}, t)); },
       "group_norm: expected beta[6] for x[4, 6], got beta[3]"},
      batch_norm_error("one value, no running statistics",
                       "without running statistics eval needs at least 2 values per channel, x[1, 10] has 1; "
                       "use a larger batch. Nothing was updated.",
                       {1, 10}, {10}, {.training = false}, false),
      batch_norm_error("eps", "eps must be a finite number >= 0, got -1", {4, 3}, {3}, {.eps = -1}),
      batch_norm_error("eps NaN", "eps must be a finite number >= 0, got nan", {4, 3}, {3}, {.eps = std::nan("")}),
      batch_norm_error("momentum", "momentum 2 is outside [0, 1]; PyTorch's 0.1 is Keras' 0.9",
                       {4, 3}, {3}, {.momentum = {2}}),
      {"batch_norm, Keras' momentum", [](Dtype) { Momentum::keras(-0.5); },
       "batch_norm: momentum -0.5 is outside [0, 1]; PyTorch's 0.1 is Keras' 0.9"},
      {"batch_norm, some statistics", [](Dtype t) { batch_norm(of({4, 3}, t), {}, {}, {of({3}, t), {}, {}}); },
       "batch_norm: expected running mean, var and batches together, got some of them"},
      {"batch_norm, statistics' dtype",
       [](Dtype t) { batch_norm(of({4, 3}, Dtype::float32), {}, {}, {of({3}, Dtype::float64), of({3}, t), {}}); },
       "batch_norm: expected one dtype, got x[4, 3] of float32 and running_mean[3] of float64; convert one with to()"},
      {"batch_norm, counter's dtype",
       [](Dtype t) { batch_norm(of({4, 3}, t), {}, {}, {of({3}, t), of({3}, t), of({}, t)}); },
       "batch_norm: expected batches of int64, got batches[] of {dtype}; convert it with to()"},
  };
}

Rows loss_errors() {
  const auto labels = [](const Shape& shape) { return zeros(shape, {.dtype = Dtype::int32, .device = test_device()}); };
  const auto count = [](const Shape& shape) { return zeros(shape, {.dtype = Dtype::int64, .device = test_device()}); };
  return {
      {"softmax, axis", [](Dtype t) { softmax(of({2, 3}, t), 2); },
       "softmax: expected an axis in [-2, 2), got 2 for x[2, 3]"},
      {"log_softmax, axis", [](Dtype t) { log_softmax(of({2, 3}, t), -3); },
       "log_softmax: expected an axis in [-2, 2), got -3 for x[2, 3]"},
      {"cross_entropy, labels' dtype", [](Dtype t) { cross_entropy(of({4, 3}, t), of({4}, t)); },
       "cross_entropy: expected labels of int32, got labels[4] of {dtype}; convert it with to()"},
      {"cross_entropy, count", [=](Dtype t) { cross_entropy(of({4, 3}, t), labels({5})); },
       "cross_entropy: expected logits[N, C] and labels[N], got logits[4, 3] and labels[5]"},
      {"cross_entropy, rank", [=](Dtype t) { cross_entropy(of({4, 3, 1}, t), labels({4})); },
       "cross_entropy: expected logits[N, C] and labels[N], got logits[4, 3, 1] and labels[4]"},
      {"cross_entropy, label",
       [](Dtype t) { cross_entropy(of({2, 3}, t), Tensor::from(std::vector<int32_t>{2, 3}, {2}, test_device())); },
       "cross_entropy: expected labels in [0, 3), got 3"},
      {"cross_entropy, negative label",
       [](Dtype t) { cross_entropy(of({2, 3}, t), Tensor::from(std::vector<int32_t>{-1, 0}, {2}, test_device())); },
       "cross_entropy: expected labels in [0, 3), got -1"},
      {"cross_entropy, smoothing",
       [=](Dtype t) { cross_entropy(of({4, 3}, t), labels({4}), {.label_smoothing = 1.5}); },
       "cross_entropy: expected label_smoothing in [0, 1], got 1.5"},
      {"dropout, p", [=](Dtype t) { dropout(of({4}, t), 1, 7, count({})); }, "dropout: expected p in [0, 1), got 1"},
      {"dropout, p NaN", [=](Dtype t) { dropout(of({4}, t), std::nan(""), 7, count({})); },
       "dropout: expected p in [0, 1), got nan"},
      {"dropout, counter", [=](Dtype t) { dropout(of({4}, t), 0.5, 7, count({2})); },
       "dropout: expected call of 1 element, got call[2]"},
      {"dropout, counter's dtype", [=](Dtype t) { dropout(of({4}, t), 0.5, 7, of({}, t)); },
       "dropout: expected call of int64, got call[] of {dtype}; convert it with to()"},
  };
}

}  // namespace

std::vector<OpError> op_errors() {
  Rows all;
  for (const Rows& rows : {dtype_errors(), shape_errors(), image_errors(), norm_errors(), loss_errors()}) {
    all.insert(all.end(), rows.begin(), rows.end());
  }
  return all;
}

}  // namespace tandem::test
