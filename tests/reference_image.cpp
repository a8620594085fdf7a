// References of products, convolution, pooling and normalisation.
#include <algorithm>
#include <cmath>
#include <limits>

#include "reference.h"

namespace tandem::test::reference {
namespace {

struct Geometry {
  Size2 kernel, stride, padding, dilation, out;
};

// Output extent of one axis; in ceil mode the last window must start inside the input or its left padding.
int64_t output_extent(int64_t in, int64_t kernel, int64_t stride, int64_t padding, int64_t dilation, bool ceil_mode) {
  const int64_t room = in + 2 * padding - dilation * (kernel - 1) - 1;
  int64_t out = room / stride + 1;
  if (ceil_mode && room % stride != 0 && out * stride < in + padding) ++out;
  return out;
}

Geometry geometry(const Shape& x, Size2 kernel, Size2 stride, Size2 padding, Size2 dilation, bool ceil_mode) {
  return {kernel,
          stride,
          padding,
          dilation,
          {output_extent(x[1], kernel.h, stride.h, padding.h, dilation.h, ceil_mode),
           output_extent(x[2], kernel.w, stride.w, padding.w, dilation.w, ceil_mode)}};
}

Geometry geometry(const Shape& x, const Pool2dOptions& o) {
  return geometry(x, o.kernel, o.stride == 0 ? o.kernel : o.stride, o.padding, o.dilation, o.ceil_mode);
}

// Calls f(h, w, kh, kw) for each position of the window of output (oh, ow), those in the padding included.
template <class F>
void for_window(const Geometry& g, int64_t oh, int64_t ow, F f) {
  for (int64_t kh = 0; kh < g.kernel.h; ++kh) {
    for (int64_t kw = 0; kw < g.kernel.w; ++kw) {
      f(oh * g.stride.h - g.padding.h + kh * g.dilation.h,
        ow * g.stride.w - g.padding.w + kw * g.dilation.w, kh, kw);
    }
  }
}

bool inside(const Shape& x, int64_t h, int64_t w) { return h >= 0 && h < x[1] && w >= 0 && w < x[2]; }

}  // namespace

Array matmul(const Array& a, const Array& b) {
  Array y(Shape{a.shape[0], b.shape[1]});
  for_each_index(y.shape, [&](const Index& i) {
    double& sum = at(y, i);
    for (int64_t k = 0; k < a.shape[1]; ++k) sum += at(a, i[0], k) * at(b, k, i[1]);
  });
  return y;
}

Array linear(const Array& x, const Array& weight, const Array& bias) {
  const Array y = matmul(x, permute(weight, {1, 0}));
  return bias.data.empty() ? y : map2(y, bias, std::plus<>());
}

Array conv2d(const Array& x, const Array& weight, const Array& bias, const Conv2dOptions& o) {
  const Geometry g = geometry(x.shape, {weight.shape[1], weight.shape[2]}, o.stride, o.padding, o.dilation, false);
  const int64_t out_per_group = weight.shape[0] / o.groups, in_per_group = weight.shape[3];
  Array y(Shape{x.shape[0], g.out.h, g.out.w, weight.shape[0]});
  for_each_index(y.shape, [&](const Index& i) {
    const int64_t group = i[3] / out_per_group;
    double sum = bias.data.empty() ? 0 : bias.data[i[3]];
    for_window(g, i[1], i[2], [&](int64_t h, int64_t w, int64_t kh, int64_t kw) {
      if (!inside(x.shape, h, w)) return;
      for (int64_t c = 0; c < in_per_group; ++c) {
        sum += at(x, i[0], h, w, group * in_per_group + c) * at(weight, i[3], kh, kw, c);
      }
    });
    at(y, i) = sum;
  });
  return y;
}

Array max_pool2d(const Array& x, const Pool2dOptions& options) {
  const Geometry g = geometry(x.shape, options);
  Array y(Shape{x.shape[0], g.out.h, g.out.w, x.shape[3]});
  for_each_index(y.shape, [&](const Index& i) {
    double largest = -std::numeric_limits<double>::infinity();
    for_window(g, i[1], i[2], [&](int64_t h, int64_t w, int64_t, int64_t) {
      if (inside(x.shape, h, w)) largest = std::max(largest, at(x, i[0], h, w, i[3]));
    });
    at(y, i) = largest;
  });
  return y;
}

Array avg_pool2d(const Array& x, const Pool2dOptions& options) {
  const Geometry g = geometry(x.shape, options);
  Array y(Shape{x.shape[0], g.out.h, g.out.w, x.shape[3]});
  for_each_index(y.shape, [&](const Index& i) {
    double sum = 0;
    int64_t count = 0;
    for_window(g, i[1], i[2], [&](int64_t h, int64_t w, int64_t, int64_t) {
      // In ceil mode a window may reach past the padding: that part never counts.
      const bool in_padded = h < x.shape[1] + g.padding.h && w < x.shape[2] + g.padding.w;
      count += options.count_padding ? in_padded : inside(x.shape, h, w);
      if (inside(x.shape, h, w)) sum += at(x, i[0], h, w, i[3]);
    });
    at(y, i) = sum / static_cast<double>(count);
  });
  return y;
}

Array global_avg_pool(const Array& x) { return reduce(x, Reduction::mean, {1, 2}, false); }

Moments moments(const Array& x, int channel_axis) {
  const int axis = channel_axis < 0 ? channel_axis + x.shape.rank() : channel_axis;
  const auto channels = x.shape[axis];
  Moments m{std::vector<double>(channels), std::vector<double>(channels), x.shape.numel() / x.shape[axis]};
  const auto n = static_cast<double>(m.count);
  for_each_index(x.shape, [&](const Index& i) { m.mean[i[axis]] += at(x, i) / n; });
  for_each_index(x.shape, [&](const Index& i) {
    const double deviation = at(x, i) - m.mean[i[axis]];
    m.var[i[axis]] += deviation * deviation / n;
  });
  return m;
}

Array normalize(const Array& x, const std::vector<double>& mean, const std::vector<double>& var, const Array& gamma,
                const Array& beta, double eps, int channel_axis) {
  const int axis = channel_axis < 0 ? channel_axis + x.shape.rank() : channel_axis;
  Array y(x.shape);
  for_each_index(x.shape, [&](const Index& i) {
    const auto c = i[axis];
    const double xhat = (at(x, i) - mean[c]) / std::sqrt(var[c] + eps);
    at(y, i) = xhat * (gamma.data.empty() ? 1 : gamma.data[c]) + (beta.data.empty() ? 0 : beta.data[c]);
  });
  return y;
}

}  // namespace tandem::test::reference
