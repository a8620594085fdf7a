#include "tandem/core/moments.h"

#include "tandem/core/ops/check.h"

namespace tandem {

Moments moments(const Tensor& x, int channel_axis, const Tensor& mask) {
  check_floating("moments", {"x", x});
  if (x.rank() < 2) throw ShapeError(fmt::format("moments: expected at least 2 axes, got {}", describe("x", x)));
  const int axis = x.shape().axis(channel_axis, "moments");
  if (axis == 0) throw ShapeError("moments: expected channels on another axis than 0, the batch");
  check_mask("moments", x, axis, mask);
  const int64_t channels = x.dim(axis);
  Moments all;
  if (x.numel() == 0) return all;
  const Chunking cut = chunking(x.shape(), x.device());
  const TensorOptions f64{Dtype::float64, x.device()};
  const Tensor slots = empty({cut.chunks(), 2, channels}, f64), marks = mask.defined() ? mask.to(x.dtype()) : mask;
  const Tensor counts = empty({cut.chunks()}, f64);
  launch(BnMoments{x, marks, slots, counts, axis});
  const std::vector<double> values = slots.to_vector<double>(), count = counts.to_vector<double>();
  for (int64_t chunk = 0; chunk < cut.chunks(); ++chunk) {
    const auto mean = values.begin() + chunk * 2 * channels, m2 = mean + channels;
    all = merge(all, {count[static_cast<size_t>(chunk)], {mean, m2}, {m2, m2 + channels}});
  }
  return all;
}

Moments merge(const Moments& a, const Moments& b) {
  if (a.count == 0) return b;
  if (b.count == 0) return a;
  if (a.mean.size() != b.mean.size())
    throw ShapeError(
        fmt::format("merge: expected parts of as many channels, got {} and {}", a.mean.size(), b.mean.size()));
  Moments all{a.count + b.count, a.mean, a.m2};
  const double share = b.count / all.count;
  for (size_t c = 0; c < all.mean.size(); ++c) {
    const double delta = b.mean[c] - a.mean[c];
    all.mean[c] += delta * share;
    all.m2[c] += b.m2[c] + delta * delta * share * a.count;
  }
  return all;
}

}  // namespace tandem
