#include "tandem/core/cpu/kernel.h"

namespace tandem::TANDEM_BACKEND {

void run(const SgdStep& k) {
  for (int64_t i = 0; i < k.p.size(); ++i) {
    const double* hyper = k.hyper[i].as<double>();
    const int64_t n = k.p[i].dims.numel();
    floating(k.p[i].dtype, [&]<class T>(T) {
      const scalar::SgdHyper<T> h = scalar::sgd_hyper<T>(*k.rate.as<double>(), hyper);
      const T* g = k.g[i].as<T>();
      T *p = k.p[i].as<T>(), *v = k.v[i].as<T>();
      const bool nesterov = k.nesterov, first = *k.steps[i].as<int64_t>() == 1;
      if (!v) {
        return for_elements(n, [=](int64_t j) {
          T unused = 0;
          scalar::sgd(p[j], unused, g[j], h, nesterov, true);
        });
      }
      for_elements(n, [=](int64_t j) { scalar::sgd(p[j], v[j], g[j], h, nesterov, first); });
    });
  }
}

void run(const AdamStep& k) {
  for (int64_t i = 0; i < k.p.size(); ++i) {
    const double* hyper = k.hyper[i].as<double>();
    const int64_t step = *k.steps[i].as<int64_t>();
    floating(k.p[i].dtype, [&]<class T>(T) {
      const scalar::AdamHyper<T> h = scalar::adam_hyper<T>(*k.rate.as<double>(), hyper, step);
      const T* g = k.g[i].as<T>();
      T *p = k.p[i].as<T>(), *m = k.m[i].as<T>(), *v = k.v[i].as<T>();
      const bool decoupled = k.decoupled;
      for_elements(k.p[i].dims.numel(), [=](int64_t j) { scalar::adam(p[j], m[j], v[j], g[j], h, decoupled); });
    });
  }
}

}  // namespace tandem::TANDEM_BACKEND
