#include "tandem/core/device.h"

#include <fmt/format.h>

#include "tandem/core/cuda.h"
#include "tandem/core/error.h"

namespace tandem {

Device Device::parse(const std::string& text) {
  if (text == "cpu") return cpu();
  if (text == "cuda") return cuda();
  if (text.size() == 6 && text.rfind("cuda:", 0) == 0 && text[5] >= '0' && text[5] <= '9') return cuda(text[5] - '0');
  throw ValueError(fmt::format("device: expected cpu, cuda or cuda:I, got '{}'", text));
}

std::string to_string(Device device) {
  return device.kind == Device::Kind::cpu ? "cpu" : fmt::format("cuda:{}", device.index);
}

void require_device(Device device) {
  if (device.kind == Device::Kind::cpu) return;
  const cuda::Devices& devices = cuda::devices();
  if (devices.all.empty()) throw DeviceError("cuda: " + devices.why_none);
  if (device.index >= static_cast<int>(devices.all.size())) {
    throw DeviceError(fmt::format("cuda: this machine has {} GPU{}, the last is cuda:{}; got {}", devices.all.size(),
                                  devices.all.size() == 1 ? "" : "s", devices.all.size() - 1, to_string(device)));
  }
}

namespace cuda {
namespace {
constinit thread_local Math current_math = Math::fp32;
}
void set_math(Math math) { current_math = math; }
Math math() { return current_math; }
}  // namespace cuda

}  // namespace tandem
