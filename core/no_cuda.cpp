// The CUDA backend of a build that has none: every way in says so.
#include "tandem/core/cuda.h"
#include "tandem/core/error.h"

namespace tandem {
namespace {

[[noreturn]] void refuse() {
  throw DeviceError("cuda: this build has no CUDA backend; configure with -DTANDEM_CUDA=ON, or use the device cpu");
}

}  // namespace

#define TANDEM_RUN(K) \
  void run(Cuda, const K&) { refuse(); }
TANDEM_CUDA_KERNELS(TANDEM_RUN)

namespace cuda {

const Devices& devices() {
  static const Devices none{
      {}, "this build has no CUDA backend; configure with -DTANDEM_CUDA=ON, or use the device cpu", {}, {}};
  return none;
}
void* allocate(size_t, int) { refuse(); }
void release(void*, size_t, int) noexcept {}
MemoryStats memory_stats() { return {}; }
void release_cached_memory() {}
void copy(void*, Device, const void*, Device, size_t) { refuse(); }
void fill_bytes(void*, Device, int, size_t) { refuse(); }
void synchronize(Device) { refuse(); }
uint64_t stream_id(Device) { refuse(); }

struct Snapshot::State {};
Snapshot::Snapshot(Device, size_t) { refuse(); }
Snapshot::~Snapshot() = default;
void Snapshot::take(const View&) { refuse(); }
const void* Snapshot::wait() const { refuse(); }

struct Graph::State {};
Graph::Graph(Device, const std::function<void()>&) { refuse(); }
Graph::~Graph() = default;
void Graph::launch() const { refuse(); }

}  // namespace cuda
}  // namespace tandem
