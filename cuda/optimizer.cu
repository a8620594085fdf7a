// All parameters of a model in one launch: each block moves a piece of one of them.
#include "tandem/cuda/block.h"

namespace tandem::cuda {
namespace {

constexpr int64_t kPiece = 2048;  // elements a block moves
constexpr int kMost = 60;         // tensors a launch: what fits into a kernel's arguments

// One parameter; v is null without momentum.
template <class T>
struct SgdTensor {
  const T* g;
  const double* hyper;
  const int64_t* steps;
  T *p, *v;
  int64_t n;
  int first_block;

  struct Hyper {
    scalar::SgdHyper<T> values;
    bool first;
  };
  TANDEM_DEVICE Hyper read_hyper(double rate) const { return {scalar::sgd_hyper<T>(rate, hyper), !v || *steps == 1}; }
  TANDEM_DEVICE void move(int64_t i, const Hyper& h, bool nesterov) const {
    T parameter = p[i], velocity = h.first ? T(0) : v[i];
    scalar::sgd(parameter, velocity, g[i], h.values, nesterov, h.first);
    p[i] = parameter;
    if (v) v[i] = velocity;
  }
};

template <class T>
struct AdamTensor {
  const T* g;
  const double* hyper;
  const int64_t* steps;
  T *p, *m, *v;
  int64_t n;
  int first_block;

  using Hyper = scalar::AdamHyper<T>;
  TANDEM_DEVICE Hyper read_hyper(double rate) const { return scalar::adam_hyper<T>(rate, hyper, *steps); }
  TANDEM_DEVICE void move(int64_t i, const Hyper& h, bool decoupled) const {
    scalar::adam(p[i], m[i], v[i], g[i], h, decoupled);
  }
};

template <class Tensor>
struct MoveAll {
  static constexpr int threads = 256;
  struct Shared {
    typename Tensor::Hyper hyper;
  };
  Tensor tensors[kMost];
  const double* rate;
  int count;
  bool flag;  // nesterov, or decoupled

  TANDEM_DEVICE void operator()(const Block& block, Shared& shared) const {
    int own = 0;
    for (int i = 1; i < count; ++i) own += block.index >= tensors[i].first_block;
    const Tensor& t = tensors[own];
    if (block.thread == 0) shared.hyper = t.read_hyper(*rate);  // once a block: Adam's takes long
    block.sync();
    const typename Tensor::Hyper hyper = shared.hyper;
    const int64_t begin = (block.index - t.first_block) * kPiece, end = min(begin + kPiece, t.n);
    for (int64_t i = begin + block.thread; i < end; i += threads) t.move(i, hyper, flag);
  }
};

// `tensor(i)` makes the i-th of `count`.
template <class Tensor, class F>
void move_all(const In& rate, int64_t count, bool flag, const F& tensor) {
  for (int64_t first = 0; first < count; first += kMost) {
    MoveAll<Tensor> all{};
    all.rate = rate.as<double>();
    all.count = static_cast<int>(min(kMost, count - first));
    all.flag = flag;
    int64_t blocks = 0;
    for (int i = 0; i < all.count; ++i) {
      all.tensors[i] = tensor(first + i);
      all.tensors[i].first_block = static_cast<int>(blocks);
      blocks += ceil_div(all.tensors[i].n, kPiece);
    }
    launch(rate.device, blocks, all);
  }
}

}  // namespace
}  // namespace tandem::cuda

namespace tandem {
using namespace cuda;

void run(Cuda, const SgdStep& k) {
  floating(k.p[0].dtype, [&]<class T>(T) {
    move_all<SgdTensor<T>>(k.rate, k.p.size(), k.nesterov, [&](int64_t i) {
      return SgdTensor<T>{k.g[i].as<T>(),
                          k.hyper[i].as<double>(),
                          k.steps[i].as<int64_t>(),
                          k.p[i].as<T>(),
                          k.v[i].as<T>(),
                          k.p[i].dims.numel(),
                          0};
    });
  });
}

void run(Cuda, const AdamStep& k) {
  floating(k.p[0].dtype, [&]<class T>(T) {
    move_all<AdamTensor<T>>(k.rate, k.p.size(), k.decoupled, [&](int64_t i) {
      return AdamTensor<T>{k.g[i].as<T>(), k.hyper[i].as<double>(), k.steps[i].as<int64_t>(), k.p[i].as<T>(),
                           k.m[i].as<T>(), k.v[i].as<T>(),          k.p[i].dims.numel(),      0};
    });
  });
}

}  // namespace tandem
