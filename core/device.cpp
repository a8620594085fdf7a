#include "tandem/core/device.h"

#include <fmt/format.h>

#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"

namespace tandem {

Device Device::parse(const std::string& text) {
  if (text == "cpu") return cpu();
  if (text == "cuda") return cuda();
  if (text.size() == 6 && text.rfind("cuda:", 0) == 0 && text[5] >= '0' && text[5] <= '9')
    return cuda(text[5] - '0');
  throw ValueError(fmt::format("device: expected cpu, cuda or cuda:I, got '{}'", text));
}

std::string to_string(Device device) {
  return device.kind == Device::Kind::cpu ? "cpu" : fmt::format("cuda:{}", device.index);
}

void require_device(Device device) {
  if (device.kind == Device::Kind::cuda) no_cuda_backend();
}

}  // namespace tandem
