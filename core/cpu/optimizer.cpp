#include "tandem/core/cpu/kernel.h"

namespace tandem::TANDEM_CPU_PATH {

void run(const SgdStep& k) {
  floating(k.p.dtype, [&]<class T>(T) {
    const double* hyper = k.hyper.as<double>();
    const scalar::SgdHyper<T> h{static_cast<T>(hyper[0]), static_cast<T>(hyper[1]), static_cast<T>(hyper[2]),
                                static_cast<T>(1 - hyper[3])};
    const T* g = k.g.as<T>();
    T *p = k.p.as<T>(), *v = k.v.as<T>();
    const bool nesterov = k.nesterov, first = *k.steps.as<int64_t>() == 1;
    if (!v) {
      return for_elements(k.p.dims.numel(), [=](int64_t i) {
        T unused = 0;
        scalar::sgd(p[i], unused, g[i], h, nesterov, true);
      });
    }
    for_elements(k.p.dims.numel(), [=](int64_t i) { scalar::sgd(p[i], v[i], g[i], h, nesterov, first); });
  });
}

void run(const AdamStep& k) {
  floating(k.p.dtype, [&]<class T>(T) {
    const double* hyper = k.hyper.as<double>();
    const double lr = hyper[0], beta1 = hyper[1], beta2 = hyper[2], eps = hyper[3], decay = hyper[4];
    const double step = static_cast<double>(*k.steps.as<int64_t>());
    const scalar::AdamHyper<T> h{static_cast<T>(beta1), static_cast<T>(1 - beta1), static_cast<T>(beta2),
                                 static_cast<T>(1 - beta2), static_cast<T>(eps), static_cast<T>(decay),
                                 static_cast<T>(1 - lr * decay), static_cast<T>(lr / (1 - std::pow(beta1, step))),
                                 static_cast<T>(std::sqrt(1 - std::pow(beta2, step)))};
    const T* g = k.g.as<T>();
    T *p = k.p.as<T>(), *m = k.m.as<T>(), *v = k.v.as<T>();
    const bool decoupled = k.decoupled;
    for_elements(k.p.dims.numel(), [=](int64_t i) { scalar::adam(p[i], m[i], v[i], g[i], h, decoupled); });
  });
}

}  // namespace tandem::TANDEM_CPU_PATH
