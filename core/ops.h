// Every differentiable operation. Shapes in brackets; images are channels-last, [N, H, W, C].
// All throw ShapeError, ValueError or (operands on different devices) DeviceError, before anything is computed, with
// the offending shapes or values: operands must share dtype and device, and be floating unless said otherwise.
#pragma once

#include <cstdint>
#include <vector>

#include "tandem/core/tensor.h"

namespace tandem {

// ---- elementwise; operands broadcast by NumPy's rules ---------------------------------------------
Tensor add(const Tensor& a, const Tensor& b);
Tensor sub(const Tensor& a, const Tensor& b);
Tensor mul(const Tensor& a, const Tensor& b);
Tensor div(const Tensor& a, const Tensor& b);
Tensor maximum(const Tensor& a, const Tensor& b);  // ties share the gradient, half each
Tensor minimum(const Tensor& a, const Tensor& b);
Tensor affine(const Tensor& x, double scale, double shift);  // x * scale + shift
Tensor neg(const Tensor& x);
Tensor exp(const Tensor& x);
Tensor log(const Tensor& x);
Tensor sqrt(const Tensor& x);
Tensor abs(const Tensor& x);   // gradient 0 at 0
Tensor relu(const Tensor& x);  // gradient 0 at 0
Tensor sigmoid(const Tensor& x);
Tensor tanh(const Tensor& x);

inline Tensor operator+(const Tensor& a, const Tensor& b) { return add(a, b); }
inline Tensor operator-(const Tensor& a, const Tensor& b) { return sub(a, b); }
inline Tensor operator*(const Tensor& a, const Tensor& b) { return mul(a, b); }
inline Tensor operator/(const Tensor& a, const Tensor& b) { return div(a, b); }
inline Tensor operator-(const Tensor& x) { return neg(x); }
inline Tensor operator+(const Tensor& x, double s) { return affine(x, 1, s); }
inline Tensor operator+(double s, const Tensor& x) { return affine(x, 1, s); }
inline Tensor operator-(const Tensor& x, double s) { return affine(x, 1, -s); }
inline Tensor operator-(double s, const Tensor& x) { return affine(x, -1, s); }
inline Tensor operator*(const Tensor& x, double s) { return affine(x, s, 0); }
inline Tensor operator*(double s, const Tensor& x) { return affine(x, s, 0); }
Tensor operator/(const Tensor& x, double s);
Tensor operator/(double s, const Tensor& x);

// ---- reductions over `axes` (all when empty); the reduced axes are dropped unless keep_dims ----------
Tensor sum(const Tensor& x, const std::vector<int>& axes = {}, bool keep_dims = false);
Tensor mean(const Tensor& x, const std::vector<int>& axes = {}, bool keep_dims = false);
Tensor max(const Tensor& x, const std::vector<int>& axes = {}, bool keep_dims = false);  // ties share evenly
std::vector<int32_t> argmax(const Tensor& x);  // x[N, C]: index of each row's largest value; not differentiable

// ---- shape ------------------------------------------------------------------------------------------
Tensor reshape(const Tensor& x, const Shape& shape);  // shares storage
// One extent may be -1.
inline Tensor reshape(const Tensor& x, std::initializer_list<int64_t> extents) { return x.reshape(extents); }
Tensor permute(const Tensor& x, const std::vector<int>& axes);
Tensor transpose(const Tensor& x);  // of a matrix
Tensor concat(const std::vector<Tensor>& parts, int axis = 0);
Tensor slice(const Tensor& x, int axis, int64_t begin, int64_t end);  // [begin, end) along axis
Tensor gather_rows(const Tensor& x, const Tensor& index);             // y[i] = x[index[i]]; index int32 [M]
Tensor expand(const Tensor& x, const Shape& shape);                   // broadcast to `shape`

// ---- products -----------------------------------------------------------------------------------------
Tensor matmul(const Tensor& a, const Tensor& b);  // a[M, K] b[K, N]
// y[N, O] = x[N, I] weight[O, I]^T + bias[O]; an empty bias is none.
Tensor linear(const Tensor& x, const Tensor& weight, const Tensor& bias = {});

// Sizes are one number, or {height, width}. Kernel, stride and dilation are in [1, 10^6], padding in [0, 10^6].
struct Conv2dOptions {
  Size2 stride = 1, padding = 0, dilation = 1;
  int64_t groups = 1;
};
// y[N, H', W', O] = x[N, H, W, C] * weight[O, kh, kw, C/groups] + bias[O] (cross-correlation),
// H' = (H + 2 padding - dilation (kh - 1) - 1) / stride + 1, rounded down.
Tensor conv2d(const Tensor& x, const Tensor& weight, const Tensor& bias = {}, const Conv2dOptions& options = {});
// The shape of its result, with the same checks; and those of the options alone (ValueError). Errors begin with `op`.
Shape conv2d_shape(const Shape& x, const Shape& weight, const Conv2dOptions& options, const char* op);
Window conv2d_window(Size2 kernel, const Conv2dOptions& options, const char* op);

// ---- pooling over [N, H, W, C] --------------------------------------------------------------------------
// H' = (H + 2 padding - dilation (kernel - 1) - 1) / stride + 1, rounded down; padding is at most half the kernel. Of
// max_pool2d, H W < 2^31.
struct Pool2dOptions {
  Size2 kernel = 2, stride = 0 /* 0: the kernel's size */, padding = 0, dilation = 1;
  bool ceil_mode = false;     // round H' up; a window must still start inside the image or its leading padding
  bool count_padding = true;  // average pooling: padding counts as zeros (PyTorch's count_include_pad)
};
Shape pool2d_shape(const Shape& x, const Pool2dOptions& options, const char* op);
Window pool2d_window(const Pool2dOptions& options, const char* op);  // as conv2d_window
Tensor max_pool2d(const Tensor& x, const Pool2dOptions& options = {});
Tensor avg_pool2d(const Tensor& x, const Pool2dOptions& options = {});
Tensor global_avg_pool(const Tensor& x);  // [N, C]

// ---- batch norm --------------------------------------------------------------------------------------------
// Running statistics of one layer; tensors of C elements, changed in place in training.
struct RunningStats {
  Tensor mean, var;  // empty: none are kept
  Tensor batches;    // int64, one element: training batches seen
  Tensor
      skipped{};  // int64, one element, may be empty: channels whose mean or variance stayed, as it would not be finite
};
// How batches enter the running statistics: running = (1 - w) running + w batch.
struct Momentum {
  double new_weight;
  bool is_cumulative = false;
  // PyTorch's number is the weight w of the new value, Keras' the weight 1 - w of the old one.
  static Momentum pytorch(double momentum);  // throws ValueError outside [0, 1]
  static Momentum keras(double momentum);
  static Momentum cumulative() { return {0, true}; }  // w = 1 / batches: the plain average
};
struct BatchNormOptions {
  double eps = 1e-5;
  Momentum momentum = {0.1};
  bool unbiased_running_var = true;  // PyTorch: true; Keras: false. Normalisation always uses the biased one
  int channel_axis = -1;
  bool training = true;
  bool allow_one_value = false;  // one value per channel in training: beta (Keras) instead of an error
};
// Ioffe and Szegedy 2015: y = (x - mean) / sqrt(var + eps) * gamma + beta per channel, over all other axes.
// x has 2 to 5 axes; gamma, beta [C] may be empty. Training uses the batch's statistics and moves `running`;
// otherwise (eval) the running ones, or the batch's where none are kept. Statistics are float64; of float32 data they
// are summed in float32 16 values at a time, then in float64.
// mask, of x's shape without the channel axis and any dtype: the batch's statistics are of the positions where it is
// not 0, as Keras has it for padded sequences; y is computed everywhere.
Tensor batch_norm(const Tensor& x, const Tensor& gamma, const Tensor& beta, RunningStats running,
                  const BatchNormOptions& options = {}, const Tensor& mask = {});

// ---- layer norm and group norm: the statistics of one sample, the same in training and eval ------------------
// Ba, Kiros and Hinton 2016: y = (x - mean) / sqrt(var + eps) * gamma + beta over x's last axes, which must be
// `normalized`; gamma and beta of that shape may be empty. Biased variance, float64 statistics.
Tensor layer_norm(const Tensor& x, const Shape& normalized, const Tensor& gamma = {}, const Tensor& beta = {},
                  double eps = 1e-5);
// Wu and He 2018: the same over the pixels and the C / groups neighbouring channels of each group of x[N, ..., C];
// gamma, beta [C] may be empty. One group: layer norm but for gamma and beta; C groups: instance norm.
Tensor group_norm(const Tensor& x, int64_t groups, const Tensor& gamma = {}, const Tensor& beta = {},
                  double eps = 1e-5);

// ---- softmax, losses, dropout ---------------------------------------------------------------------------------
Tensor softmax(const Tensor& x, int axis = -1);
Tensor log_softmax(const Tensor& x, int axis = -1);
enum class Reduction { none, mean, sum };
struct CrossEntropyOptions {
  double label_smoothing = 0;  // in [0, 1]
  Reduction reduction = Reduction::mean;
};
// logits[N, C], labels int32 [N] with 0 <= label < C. -log softmax(logits)[label], reduced.
Tensor cross_entropy(const Tensor& logits, const Tensor& labels, const CrossEntropyOptions& options = {});
// Zeroes each element with probability p in [0, 1), scales the others by 1 / (1 - p). The mask is a function
// of `key`, of the int64 tensor `call` (one element) and of the element's position.
Tensor dropout(const Tensor& x, double p, uint64_t key, const Tensor& call);

}  // namespace tandem
