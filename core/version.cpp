#include "tandem/core/version.h"

namespace tandem {

const char* version() { return TANDEM_VERSION; }
const char* commit() { return TANDEM_COMMIT; }
const char* compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

}  // namespace tandem
