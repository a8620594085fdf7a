// The whole backend contract: every kernel is a plain struct, a *kernel call as a value*.
//
// The types of its operands say how each is used, which is all that a recorder, a planner or a
// printer has to know; everything else is a scalar. `run(Cpu, k)` lives in core/cpu/, `run(Cuda, k)`
// in cuda/, or in core/no_cuda.cpp where that is not built; a missing half is a link error. Kernels see
// Views, never a Tensor, and check nothing: the op that launches them has checked every shape, dtype and device.
//
// Unless a line says otherwise: floating operands of one call share one dtype (float32 or float64),
// `In`s with null data are absent options, outputs never alias inputs.
#pragma once

// A kernel is a line where it can be.
// clang-format off
#include <algorithm>
#include <concepts>
#include <tuple>
#include <vector>

#include "tandem/core/device.h"
#include "tandem/core/dtype.h"
#include "tandem/core/shape.h"

namespace tandem {

// ---- operands --------------------------------------------------------------------------------

// Contiguous row-major elements on one device. Does not own them.
struct View {
  void* data = nullptr;
  Shape dims;
  Dtype dtype = Dtype::float32;
  Device device;

  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
  explicit operator bool() const { return data != nullptr; }
};
// Rows [begin, end) of v.
inline View rows_of(View v, int64_t begin, int64_t end) {
  const int64_t row = v.dims[0] == 0 ? 0 : v.dims.numel() / v.dims[0];
  v.data = static_cast<char*>(v.data) + begin * row * size_of(v.dtype);
  v.dims = v.dims.with(0, end - begin);
  return v;
}

enum class Use : uint8_t { in, out, inout, rows_in, rows_out, sum, slots };

template <Use U>
struct Operand : View {
  static constexpr Use use = U;
  Operand() = default;
  template <class T>
    requires std::convertible_to<const T&, View>
  Operand(const T& tensor) : View(tensor) {}
};
// Sums over rows. A lane is the sequence of its chunks: calls on one chunk of rows each, the second and later with
// `add`, give the bits of one call on them all.
template <>
struct Operand<Use::sum> : View {
  static constexpr Use use = Use::sum;
  bool add = false;  // adds to what is there instead of overwriting it
  Operand() = default;
  template <class T>
    requires std::convertible_to<const T&, View>
  Operand(const T& tensor, bool add_ = false) : View(tensor), add(add_) {}
};
using In = Operand<Use::in>;            // read, whole
using Out = Operand<Use::out>;          // written, whole
using InOut = Operand<Use::inout>;      // state: read and written in place, whole
using RowsIn = Operand<Use::rows_in>;   // row i is read only for row i of the outputs, or to add to a Sum
using RowsOut = Operand<Use::rows_out>; // row i depends on row i of the RowsIn only
using Sum = Operand<Use::sum>;          // [lanes, ...]: per lane the sum over its rows; added up by Merge
using Slots = Operand<Use::slots>;      // [chunks, ...]: one row per chunk of rows, merged by a later call

// As many operands of one use as a call is given.
template <Use U>
class Operands {
 public:
  static constexpr Use use_of_each = U;
  void push_back(const Operand<U>& operand) { all_.push_back(operand); }
  [[gnu::always_inline]] int64_t size() const { return static_cast<int64_t>(all_.size()); }
  [[gnu::always_inline]] const Operand<U>& operator[](int64_t i) const { return all_.data()[i]; }
  [[gnu::always_inline]] Operand<U>& operator[](int64_t i) { return all_.data()[i]; }

 private:
  std::vector<Operand<U>> all_;
};
using Ins = Operands<Use::in>;
using InOuts = Operands<Use::inout>;

// How the rows (axis 0) of a batch are cut, from the shape alone, so that sums have one order on any
// number of threads: chunks of `rows` rows, and at most 8 lanes, each a contiguous run of chunks. On a GPU a batch is
// one chunk: its kernels cut it for themselves.
struct Chunking {
  int64_t n, rows;
  int64_t chunks() const { return (n + rows - 1) / rows; }
  int64_t lanes() const { return chunks() < 8 ? chunks() : 8; }
  int64_t chunk_begin(int64_t chunk) const { return chunk * rows < n ? chunk * rows : n; }
  int64_t lane_begin(int64_t lane) const { return chunk_begin(lane * chunks() / lanes()); }
};
inline Chunking chunking(const Shape& x, Device device = {}) {
  const int64_t n = x[0];
  if (device.kind == Device::Kind::cuda) return {n, n > 0 ? n : 1};
  if (x.rank() >= 3) return {n, 2};
  return {n, n <= 256 ? (n > 0 ? n : 1) : 128};
}

// Names the struct and lists its fields once, operands and scalars alike.
#define TANDEM_KERNEL(NAME, ...)                           \
  static constexpr const char* name = #NAME;               \
  static constexpr const char* field_names = #__VA_ARGS__; \
  auto fields() const { return std::tie(__VA_ARGS__); }

// ---- elementwise -------------------------------------------------------------------------------

// y = value, converted to y's dtype (any dtype).
struct Fill { Out y; double value; TANDEM_KERNEL(Fill, y, value) };
// y = x, converted to y's dtype (any dtype to any).
struct Cast { RowsIn x; RowsOut y; TANDEM_KERNEL(Cast, x, y) };
// y = x * scale + shift, each rounded to the dtype first; two roundings.
struct Affine { RowsIn x; RowsOut y; double scale, shift; TANDEM_KERNEL(Affine, x, y, scale, shift) };

enum class UnaryOp : uint8_t { exp, log, sqrt, abs, relu, sigmoid, tanh };
// y = op(x); formulas in scalar_math.h.
struct Unary { RowsIn x; RowsOut y; UnaryOp op; TANDEM_KERNEL(Unary, x, y, op) };
// dx = dy * op'(.), from `saved`: x for log and abs, y for the others.
struct UnaryGrad { RowsIn saved, dy; RowsOut dx; UnaryOp op; TANDEM_KERNEL(UnaryGrad, saved, dy, dx, op) };

// step(a, b) = 1 where a > b, 1/2 where a == b, else 0; equal(a, b) = 1 where a == b, else 0.
enum class BinaryOp : uint8_t { add, sub, mul, div, maximum, minimum, step, equal };
// y = op(a, b); a and b broadcast to y's shape by NumPy's rules.
struct Binary { In a, b; Out y; BinaryOp op; TANDEM_KERNEL(Binary, a, b, y, op) };
// sum += g.
struct AddTo { In g; InOut sum; TANDEM_KERNEL(AddTo, g, sum) };
// Each n[i] += 1 (one int64).
struct Count { InOuts n; TANDEM_KERNEL(Count, n) };
// x *= *factor (one element of the same dtype).
struct Scale { In factor; InOut x; TANDEM_KERNEL(Scale, factor, x) };

// ---- shape and rows ----------------------------------------------------------------------------

// y's axis i is x's axis perm[i] (any dtype).
struct Permute { In x; Out y; Shape perm; TANDEM_KERNEL(Permute, x, y, perm) };
// y = x broadcast to y's shape.
struct Expand { In x; Out y; TANDEM_KERNEL(Expand, x, y) };
// y = x[.., begin : begin + y.dims[axis], ..] along `axis` (any dtype).
struct Slice { In x; Out y; int axis; int64_t begin; TANDEM_KERNEL(Slice, x, y, axis, begin) };
// y[.., begin : begin + x.dims[axis], ..] = x; the rest of y is kept (any dtype).
struct Place { In x; InOut y; int axis; int64_t begin; TANDEM_KERNEL(Place, x, y, axis, begin) };
// y[i] = x[index[i]], rows of axis 0 (any dtype; index int32, in range).
struct GatherRows { In x, index; Out y; TANDEM_KERNEL(GatherRows, x, index, y) };
// Notes, for the next wait for this device (cuda.h), the first value of `index` (int32) outside [0, n) and who asked;
// other kernels read such a row as NaN or not at all. The CPU looks at once (ops/check.h), CUDA alone has this kernel.
enum class Asker : uint8_t { gather_rows, cross_entropy };
struct CheckIndex { In index; Asker asker; int64_t n; TANDEM_KERNEL(CheckIndex, index, asker, n) };
// dx = 0, then dx[index[i]] += dy[i] in order of i.
struct GatherRowsGrad { In dy, index; Out dx; TANDEM_KERNEL(GatherRowsGrad, dy, index, dx) };
// y[i] = images[index[i]] * scale: uint8 [N, H, W, C] to floating [B, H, W, C]. With `shifts` (int32
// [B, 2]), image i moves down by shifts[i][0] and right by shifts[i][1]; what enters is 0.
struct GatherImages {
  In images, index, shifts; Out y; double scale;
  TANDEM_KERNEL(GatherImages, images, index, shifts, y, scale)
};

// ---- reductions --------------------------------------------------------------------------------

enum class ReduceOp : uint8_t { sum, mean, max };
// y = op over the axes in which y's extent is 1 (same rank). Sums run in float64, in index order.
// An absent x extent of 0 gives 0 for sum, NaN for mean; the op refuses max.
struct Reduce { In x; Out y; ReduceOp op; TANDEM_KERNEL(Reduce, x, y, op) };
// total = the lanes of `parts` added in order (parts.dims[0] lanes; parts may be float64 when total is not).
struct Merge { In parts; Out total; TANDEM_KERNEL(Merge, parts, total) };
// squares[0] += sum of x^2 (squares is float64). For gradient-norm clipping.
struct SumSquares { In x; InOut squares; TANDEM_KERNEL(SumSquares, x, squares) };
// factor = min(1, max_norm / (sqrt(squares[0]) + 1e-6)), as PyTorch's clip_grad_norm_.
struct ClipFactor { In squares; Out factor; double max_norm; TANDEM_KERNEL(ClipFactor, squares, factor, max_norm) };

// ---- matrix products ---------------------------------------------------------------------------

// How a GPU multiplies float32: as it is; with factors rounded to TF32 (10 bits of fraction) or bfloat16 (7 bits), on
// tensor cores, and sums in float32. The CPU, and float64, pay it no heed.
enum class Math : uint8_t { fp32, tf32, bf16 };
constexpr const char* name_of(Math m) { return m == Math::fp32 ? "fp32" : m == Math::tf32 ? "tf32" : "bf16"; }

// y[M, N] = op(a) op(b), op = transpose where asked.
struct MatMul { In a, b; Out y; bool transpose_a, transpose_b; Math math = Math::fp32; TANDEM_KERNEL(MatMul, a, b, y, transpose_a, transpose_b, math) };
// y[N, O] = x[N, I] w[O, I]^T + b[O] (b may be absent). Here and in LinearDw, `sparse` says that x is expected to be
// mostly zero: terms with its zeros may be dropped, which leaves a finite result as it is, to the bit.
struct Linear { RowsIn x; In w, b; RowsOut y; bool sparse = false; Math math = Math::fp32; TANDEM_KERNEL(Linear, x, w, b, y, sparse, math) };
// dx[N, I] = dy[N, O] w[O, I].
struct LinearDx { RowsIn dy; In w; RowsOut dx; Math math = Math::fp32; TANDEM_KERNEL(LinearDx, dy, w, dx, math) };
// dw[lanes, O, I] = sum over rows of dy[N, O]^T x[N, I].
struct LinearDw { RowsIn dy, x; Sum dw; bool sparse = false; Math math = Math::fp32; TANDEM_KERNEL(LinearDw, dy, x, dw, sparse, math) };
// db[lanes, C] = sums over all axes but the last (db is float64).
struct SumRows { RowsIn dy; Sum db; TANDEM_KERNEL(SumRows, dy, db) };

// A sliding window over H and W of an [N, H, W, C] tensor.
struct Window {
  Size2 kernel, stride, padding, dilation;
};
// Cross-correlation, channels-last: y[N, H', W', O] = x[N, H, W, C] * w[O, kh, kw, C/groups] + b[O].
// With mean and rstd (and gamma, beta) x stands for what BnApply makes of it along its last axis, with relu for
// the relu of that; padding is 0 nevertheless. packed may be absent: what ConvPack made of w.
struct Conv {
  RowsIn x; In w, b; RowsOut y; Window window; int64_t groups; Math math = Math::fp32;
  In mean{}, rstd{}, gamma{}, beta{}; bool relu = false; In packed{};
  TANDEM_KERNEL(Conv, x, w, b, y, window, groups, math, mean, rstd, gamma, beta, relu, packed)
};
// packed: what ConvPack made of w, turned.
struct ConvDx {
  RowsIn dy; In w; RowsOut dx; Window window; int64_t groups; Math math = Math::fp32; In packed{};
  TANDEM_KERNEL(ConvDx, dy, w, dx, window, groups, math, packed)
};
// dw[lanes, O, kh, kw, C/groups]. x stands for what it does in Conv.
struct ConvDw {
  RowsIn dy, x; Sum dw; Window window; int64_t groups; Math math = Math::fp32;
  In mean{}, rstd{}, gamma{}, beta{}; bool relu = false;
  TANDEM_KERNEL(ConvDw, dy, x, dw, window, groups, math, mean, rstd, gamma, beta, relu)
};
// packed = w as Conv, or turned, as ConvDx wants it: of conv_packed_size (conv_pack.h) floats, not 0. CUDA packs
// nothing, and the CPU alone has this kernel.
struct ConvPack {
  In w; Out packed; Window window; bool turned;
  TANDEM_KERNEL(ConvPack, w, packed, window, turned)
};

// ---- pooling -----------------------------------------------------------------------------------

// y = largest value of each window, `index` (int32) its position iy * W + ix in x's image. Padding
// never wins; among equals the first in window order; a NaN wins over everything.
struct MaxPool { RowsIn x; RowsOut y, index; Window window; TANDEM_KERNEL(MaxPool, x, y, index, window) };
struct MaxPoolGrad { RowsIn dy, index; RowsOut dx; TANDEM_KERNEL(MaxPoolGrad, dy, index, dx) };
// y = mean of each window; padding counts as zeros when count_padding, else is left out.
struct AvgPool { RowsIn x; RowsOut y; Window window; bool count_padding; TANDEM_KERNEL(AvgPool, x, y, window, count_padding) };
struct AvgPoolGrad { RowsIn dy; RowsOut dx; Window window; bool count_padding; TANDEM_KERNEL(AvgPoolGrad, dy, dx, window, count_padding) };

// ---- batch norm --------------------------------------------------------------------------------
// x is any rank >= 2; channels lie on `axis`. mean, rstd, moments and the gradient sums are float64,
// running statistics and gamma, beta have x's dtype.

// moments[chunk] = {mean[C], M2[C]}: mean and sum of squared deviations of the chunk's rows.
// With a mask (x's shape without `axis`) only values where it is not 0 count. counts[chunk]: how many of a channel do;
// may be absent without a mask.
struct BnMoments {
  RowsIn x, mask; Slots moments, counts; int axis;
  TANDEM_KERNEL(BnMoments, x, mask, moments, counts, axis)
};
// Merges the chunks (Chan, Golub, LeVeque 1979) of a batch with `rows` rows and `per_row` values of a
// channel in each, or counts[chunk] values of a channel (counts may be absent): mean[C], rstd[C] = 1/sqrt(var + eps) with the biased variance (0 when var and eps are 0).
// Then, if running_mean is there: batches += 1 (int64), running = (1 - w) running + w batch, with
// w = 1/batches when cumulative, else new_weight, and the unbiased variance when `unbiased`.
// A running statistic that would not be finite stays as it is; skipped (int64) counts the channels with such a one.
struct BnFinish {
  In moments, counts; Out mean, rstd; InOut running_mean, running_var, batches, skipped;
  int64_t rows, chunk_rows, per_row; double eps, new_weight; bool cumulative, unbiased;
  TANDEM_KERNEL(BnFinish, moments, counts, mean, rstd, running_mean, running_var, batches, skipped, rows,
                chunk_rows, per_row, eps, new_weight, cumulative, unbiased)
};
// The same from the values themselves, on a GPU.
struct BnStatistics {
  In x, mask; Out mean, rstd; InOut running_mean, running_var, batches, skipped;
  int axis; double eps, new_weight; bool cumulative, unbiased;
  TANDEM_KERNEL(BnStatistics, x, mask, mean, rstd, running_mean, running_var, batches, skipped, axis, eps, new_weight,
                cumulative, unbiased)
};
// mean, rstd from running statistics, for eval.
struct BnFromRunning { In running_mean, running_var; Out mean, rstd; double eps; TANDEM_KERNEL(BnFromRunning, running_mean, running_var, mean, rstd, eps) };
// y = (x - mean) * (rstd * gamma) + beta; gamma, beta may be absent.
struct BnApply { RowsIn x; In mean, rstd, gamma, beta; RowsOut y; int axis; TANDEM_KERNEL(BnApply, x, mean, rstd, gamma, beta, y, axis) };
// sums[lanes, 2, C] = {sum dy, sum dy * (x - mean)}. On a GPU it does the work of BnGradFinish too.
struct BnGradSums {
  RowsIn dy, x; In mean, rstd; Sum sums; int axis; Out dgamma{}, dbeta{};
  TANDEM_KERNEL(BnGradSums, dy, x, mean, rstd, sums, axis, dgamma, dbeta)
};
// dgamma = sums[1] * rstd, dbeta = sums[0] (each may be absent).
struct BnGradFinish { In sums, rstd; Out dgamma, dbeta; TANDEM_KERNEL(BnGradFinish, sums, rstd, dgamma, dbeta) };
// dx = gamma * rstd * (dy - sums[0]/n - (x - mean) * rstd^2 * sums[1]/n) for batch statistics over n values
// (Ioffe and Szegedy 2015, section 3); without sums (eval), or where the mask is 0: dx = gamma * rstd * dy.
struct BnGradApply {
  RowsIn dy, x, mask; In mean, rstd, gamma, sums; RowsOut dx; int axis; int64_t n;
  TANDEM_KERNEL(BnGradApply, dy, x, mask, mean, rstd, gamma, sums, dx, axis, n)
};
// Batch norm and the activation behind it (relu, sigmoid or tanh), with the bits of the separate calls: BnApply, then
// Unary; UnaryGrad, then BnGradSums or BnGradApply (without a mask, with sums). y is BnAct's result, absent for relu,
// whose gradient needs its sign alone and computes that again from x.
struct BnAct { RowsIn x; In mean, rstd, gamma, beta; RowsOut y; int axis; UnaryOp act; TANDEM_KERNEL(BnAct, x, mean, rstd, gamma, beta, y, axis, act) };
struct BnActGradSums {
  RowsIn y, dy, x; In mean, rstd, gamma, beta; Sum sums; int axis; UnaryOp act; Out dgamma{}, dbeta{};
  TANDEM_KERNEL(BnActGradSums, y, dy, x, mean, rstd, gamma, beta, sums, axis, act, dgamma, dbeta)
};
struct BnActGradApply {
  RowsIn y, dy, x; In mean, rstd, gamma, beta, sums; RowsOut dx; int axis; int64_t n; UnaryOp act;
  TANDEM_KERNEL(BnActGradApply, y, dy, x, mean, rstd, gamma, beta, sums, dx, axis, n, act)
};

// ---- softmax and losses ------------------------------------------------------------------------

// Along the last axis: y = softmax(x), or its logarithm.
struct Softmax { RowsIn x; RowsOut y; bool log; TANDEM_KERNEL(Softmax, x, y, log) };
struct SoftmaxGrad { RowsIn y, dy; RowsOut dx; bool log; TANDEM_KERNEL(SoftmaxGrad, y, dy, dx, log) };
// loss[i] = -sum_c t_c log softmax(x[i])_c, t = (1 - s) onehot(label[i]) + s/C, s = smoothing; labels int32.
struct CrossEntropy { RowsIn x, label; RowsOut loss; double smoothing; TANDEM_KERNEL(CrossEntropy, x, label, loss, smoothing) };
// dx[i] = dloss[i] scale (softmax(x[i]) - t). dloss is [N], or [1] for all rows; absent, 1.
struct CrossEntropyGrad { RowsIn x, label; In dloss; RowsOut dx; double smoothing, scale; TANDEM_KERNEL(CrossEntropyGrad, x, label, dloss, dx, smoothing, scale) };
// On a GPU: CrossEntropy, and CrossEntropyGrad without dloss.
struct CrossEntropyBoth { RowsIn x, label; RowsOut loss, dx; double smoothing, scale; TANDEM_KERNEL(CrossEntropyBoth, x, label, loss, dx, smoothing, scale) };

// records[*count mod R] = {loss, how many rows of logits[N, C] are largest at their label (of equals, the first)}, then
// *count += 1. records is float64 [R, 2], count int64, loss has one element.
struct NoteStep { In loss, logits, label; InOut records, count; TANDEM_KERNEL(NoteStep, loss, logits, label, records, count) };

// ---- randomness --------------------------------------------------------------------------------

// y[i] = x[i] / (1 - p) where the i-th draw of Philox(key, *call) is >= p, else 0. `call` is int64. The draws go by
// position, so rows cannot be taken apart.
struct DropoutApply { In x, call; Out y; uint64_t key; double p; TANDEM_KERNEL(DropoutApply, x, call, y, key, p) };

// ---- optimizers --------------------------------------------------------------------------------
// A call moves all parameters of one dtype: g[i], hyper[i], steps[i], p[i] and what is kept for it belong together.
// `hyper` and `rate` (one element) are float64, read at run time so that schedules may write them between steps; steps
// (int64) counts them, this one included.

// hyper = {scale, momentum, weight_decay, dampening}, lr = rate scale. g += wd p; v = momentum v + (1 - dampening) g, in
// step 1 v = g; p -= lr (nesterov ? g + momentum v : v). v is absent when momentum is 0. As torch.optim.SGD.
struct SgdStep { In rate; Ins g, hyper, steps; InOuts p, v; bool nesterov; TANDEM_KERNEL(SgdStep, rate, g, hyper, steps, p, v, nesterov) };
// hyper = {scale, beta1, beta2, eps, weight_decay}, lr = rate scale. Kingma and Ba 2015, algorithm 1, with t = steps and
// p -= lr/(1-b1^t) m / (sqrt(v/(1-b2^t)) + eps); decoupled: p *= 1 - lr wd first (Loshchilov and Hutter 2019),
// else g += wd p. As torch.optim.Adam and AdamW.
struct AdamStep {
  In rate; Ins g, hyper, steps; InOuts p, m, v; bool decoupled;
  TANDEM_KERNEL(AdamStep, rate, g, hyper, steps, p, m, v, decoupled)
};

// ---- every kernel, once --------------------------------------------------------------------------

#define TANDEM_SHARED_KERNELS(X)                                                                      \
  X(Fill) X(Cast) X(Affine) X(Unary) X(UnaryGrad) X(Binary) X(AddTo) X(Count) X(Scale)                \
  X(Permute) X(Expand) X(Slice) X(Place) X(GatherRows) X(GatherRowsGrad) X(GatherImages)              \
  X(Reduce) X(Merge) X(SumSquares) X(ClipFactor)                                                      \
  X(MatMul) X(Linear) X(LinearDx) X(LinearDw) X(SumRows)                                              \
  X(Conv) X(ConvDx) X(ConvDw)                                                                         \
  X(MaxPool) X(MaxPoolGrad) X(AvgPool) X(AvgPoolGrad)                                                 \
  X(BnMoments) X(BnFromRunning) X(BnApply) X(BnGradSums) X(BnGradApply)                               \
  X(BnAct) X(BnActGradSums) X(BnActGradApply)                                                         \
  X(Softmax) X(SoftmaxGrad) X(CrossEntropy) X(CrossEntropyGrad) X(NoteStep) X(DropoutApply) \
  X(SgdStep) X(AdamStep)
#define TANDEM_CPU_KERNELS(X) TANDEM_SHARED_KERNELS(X) X(ConvPack) X(BnFinish) X(BnGradFinish)
#define TANDEM_GPU_KERNELS(X) X(CheckIndex) X(BnStatistics) X(CrossEntropyBoth)
#define TANDEM_CUDA_KERNELS(X) TANDEM_SHARED_KERNELS(X) TANDEM_GPU_KERNELS(X)
#define TANDEM_KERNELS(X) TANDEM_CPU_KERNELS(X) TANDEM_GPU_KERNELS(X)

#define TANDEM_DECLARE(K) void run(Cpu, const K&);
TANDEM_CPU_KERNELS(TANDEM_DECLARE)
#undef TANDEM_DECLARE
#define TANDEM_DECLARE(K) void run(Cuda, const K&);
TANDEM_CUDA_KERNELS(TANDEM_DECLARE)
#undef TANDEM_DECLARE

}  // namespace tandem
