#include "exit_code.h"

#include <new>

namespace tandem {

namespace {
template <class... Types>
bool is_any(const std::exception& error) {
  return (... || (dynamic_cast<const Types*>(&error) != nullptr));
}
}  // namespace

// Shapes and values that the library refuses come from what the user asked for: layers, sizes, rates.
int exit_code(const std::exception& error) {
  if (is_any<UsageError, ShapeError, ValueError>(error)) return kUsage;
  if (is_any<DataError>(error)) return kData;
  if (is_any<ModelFileError>(error)) return kModel;
  if (is_any<DivergedError>(error)) return kDiverged;
  if (is_any<OutOfMemory, std::bad_alloc>(error)) return kMemory;
  if (is_any<DeviceError>(error)) return kDevice;
  return kFailure;
}

const char* const kExitCodes =
    "Exit codes:\n"
    "  0 success          3 data missing or corrupt        6 out of memory\n"
    "  1 other failure    4 model file missing or corrupt  7 device not available\n"
    "  2 wrong usage      5 the loss diverged              130, 143 interrupted\n";

}  // namespace tandem
