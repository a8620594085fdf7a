#include "tandem/core/cpu/kernel.h"

namespace tandem::TANDEM_BACKEND {
namespace {

// f(row) for rows of `width` elements, several rows a piece.
template <class F>
void for_rows(const Shape& dims, const F& f) {
  if (dims.numel() == 0) return;
  const int64_t width = dims[dims.rank() - 1];
  parallel_ranges(dims.numel() / width, max(1, kGrain / 4 / width), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) f(row);
  });
}

template <class T>
int64_t index_of_largest(const T* x, int64_t n) {
  int64_t best = 0;
  for (int64_t i = 1; i < n; ++i) best = x[i] > x[best] ? i : best;
  return best;
}

// e[i] = exp(x[i] - x[top]), where x[top] is the largest; e may be x. Returns the sum of all e but e[top], which is
// 1: apart from it, small sums keep their digits. A NaN anywhere makes it NaN.
template <class T>
double exponentials(const T* x, int64_t n, int64_t top, T* e) {
  const T largest = x[top];
  TANDEM_INDEPENDENT
  for (int64_t i = 0; i < n; ++i) e[i] = scalar::exp(x[i] - largest);
  double others = 0;
  for (int64_t i = 0; i < n; ++i) others += i == top ? static_cast<double>(e[i]) - 1 : static_cast<double>(e[i]);
  return others;
}

}  // namespace

void run(const Softmax& k) {
  const int64_t n = k.x.dims[k.x.dims.rank() - 1];
  floating(k.x.dtype, [&]<class T>(T) {
    for_rows(k.x.dims, [&](int64_t row) {
      const T* x = k.x.as<T>() + row * n;
      T* y = k.y.as<T>() + row * n;
      const int64_t top = index_of_largest(x, n);
      const T largest = x[top];
      const double others = exponentials(x, n, top, y);
      if (k.log) {
        const double log_sum = std::log1p(others);
        for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(static_cast<double>(x[i] - largest) - log_sum);
      } else {
        for (int64_t i = 0; i < n; ++i) y[i] = static_cast<T>(static_cast<double>(y[i]) / (1 + others));
      }
    });
  });
}

void run(const SoftmaxGrad& k) {
  const int64_t n = k.y.dims[k.y.dims.rank() - 1];
  floating(k.y.dtype, [&]<class T>(T) {
    for_rows(k.y.dims, [&](int64_t row) {
      const T *y = k.y.as<T>() + row * n, *dy = k.dy.as<T>() + row * n;
      T* dx = k.dx.as<T>() + row * n;
      double sum = 0;
      for (int64_t i = 0; i < n; ++i) sum += k.log ? static_cast<double>(dy[i]) : static_cast<double>(dy[i] * y[i]);
      const T total = static_cast<T>(sum);
      for (int64_t i = 0; i < n; ++i) dx[i] = k.log ? dy[i] - scalar::exp(y[i]) * total : y[i] * (dy[i] - total);
    });
  });
}

void run(const CrossEntropy& k) {
  const int64_t n = k.x.dims[1];
  floating(k.x.dtype, [&]<class T>(T) {
    for_rows(k.x.dims, [&](int64_t row) {
      const T* x = k.x.as<T>() + row * n;
      const int64_t top = index_of_largest(x, n), label = k.label.as<int32_t>()[row];
      const double largest = static_cast<double>(x[top]), s = k.smoothing;
      double loss = std::log1p(exponentials(x, n, top, scratch<T>(n)));
      loss -= (1 - s) * (static_cast<double>(x[label]) - largest);
      if (s != 0) {
        double mean = 0;
        for (int64_t c = 0; c < n; ++c) mean += static_cast<double>(x[c]) - largest;
        loss -= s * (mean / static_cast<double>(n));
      }
      k.loss.as<T>()[row] = static_cast<T>(loss);
    });
  });
}

void run(const CrossEntropyGrad& k) {
  const int64_t n = k.x.dims[1];
  const bool one_upstream = k.dloss.dims.numel() == 1;
  floating(k.x.dtype, [&]<class T>(T) {
    for_rows(k.x.dims, [&](int64_t row) {
      const T* x = k.x.as<T>() + row * n;
      T* dx = k.dx.as<T>() + row * n;
      const int64_t label = k.label.as<int32_t>()[row];
      const double sum = 1 + exponentials(x, n, index_of_largest(x, n), dx);
      const double upstream =
          k.dloss ? static_cast<double>(k.dloss.as<T>()[one_upstream ? 0 : row]) * k.scale : k.scale;
      const double everywhere = k.smoothing / static_cast<double>(n);
      for (int64_t c = 0; c < n; ++c) {
        const double target = (c == label ? 1 - k.smoothing : 0.0) + everywhere;
        dx[c] = static_cast<T>(upstream * (static_cast<double>(dx[c]) / sum - target));
      }
    });
  });
}

void run(const NoteStep& k) {
  const int64_t rows = k.logits.dims[0], classes = k.logits.dims[1];
  floating(k.logits.dtype, [&]<class T>(T) {
    int64_t correct = 0;
    for (int64_t i = 0; i < rows; ++i) {
      correct += index_of_largest(k.logits.as<T>() + i * classes, classes) == k.label.as<int32_t>()[i];
    }
    int64_t& count = *k.count.as<int64_t>();
    double* record = k.records.as<double>() + count % k.records.dims[0] * 2;
    record[0] = static_cast<double>(*k.loss.as<T>());
    record[1] = static_cast<double>(correct);
    ++count;
  });
}

}  // namespace tandem::TANDEM_BACKEND
