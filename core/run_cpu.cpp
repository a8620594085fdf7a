// Every CPU kernel exists three times (see core/cpu/): this file picks the copy for this machine.
#include <fmt/format.h>

#include <cstdlib>
#include <cstring>

#include "tandem/core/error.h"
#include "tandem/core/kernels.h"
#include "tandem/core/threads.h"

#define TANDEM_DECLARE(K) void run(const K&);
namespace tandem::x86_64 {
TANDEM_CPU_KERNELS(TANDEM_DECLARE)
}
namespace tandem::avx2 {
TANDEM_CPU_KERNELS(TANDEM_DECLARE)
}
namespace tandem::avx512 {
TANDEM_CPU_KERNELS(TANDEM_DECLARE)
}
#undef TANDEM_DECLARE

namespace tandem {
namespace {

enum Path { kX86_64, kAvx2, kAvx512 };
constexpr const char* kNames[] = {"x86-64", "avx2", "avx512"};

Path best_path() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi") &&
                    __builtin_cpu_supports("bmi2");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  return avx2 && avx512 ? kAvx512 : avx2 ? kAvx2 : kX86_64;
}

Path choose_path() {
  const Path best = best_path();
  const char* wanted = std::getenv("TANDEM_CPU_PATH");
  if (!wanted || !*wanted) return best;
  for (const Path path : {kX86_64, kAvx2, kAvx512}) {
    if (std::strcmp(wanted, kNames[path]) != 0) continue;
    if (path <= best) return path;
    warn(fmt::format("TANDEM_CPU_PATH: this CPU does not have {}; using {}", wanted, kNames[best]));
    return best;
  }
  warn(fmt::format("TANDEM_CPU_PATH: expected x86-64, avx2 or avx512, got \"{}\"; using {}", wanted, kNames[best]));
  return best;
}

Path path() {
  static const Path chosen = choose_path();
  return chosen;
}

}  // namespace

const char* cpu_path() { return kNames[path()]; }

#define TANDEM_RUN(K)                                                           \
  void run(Cpu, const K& k) {                                                   \
    const Path p = path();                                                      \
    p == kAvx512 ? avx512::run(k) : p == kAvx2 ? avx2::run(k) : x86_64::run(k); \
  }
TANDEM_CPU_KERNELS(TANDEM_RUN)

}  // namespace tandem
