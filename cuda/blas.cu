// cuBLAS, loaded at the first product: it takes longer to load than a short program runs.
#include <cublas_v2.h>
#include <dlfcn.h>

#include <map>
#include <mutex>
#include <string>

#include "tandem/core/error.h"
#include "tandem/cuda/blas.h"
#include "tandem/cuda/runtime.h"

namespace tandem::cuda {
namespace {

struct Library {
  decltype(&cublasCreate_v2) create;
  decltype(&cublasSetStream_v2) set_stream;
  decltype(&cublasSetWorkspace_v2) set_workspace;
  decltype(&cublasGemmEx_64) gemm;
  decltype(&cublasGetStatusString) status_string;
};

Library load() {
  const std::string name = "libcublas.so." + std::to_string(CUBLAS_VER_MAJOR);
  void* library = nullptr;
  for (const std::string& path : {name, std::string(TANDEM_CUBLAS_DIR "/") + name}) {
    if (!library) library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  }
  if (!library)
    throw DeviceError("cuda: " + name + " could not be loaded (" + dlerror() +
                      "); install cuBLAS, or name its folder in LD_LIBRARY_PATH");
  const auto find = [&](const char* symbol, auto& function) {
    void* found = dlsym(library, symbol);
    if (!found) throw DeviceError("cuda: " + name + " has no " + symbol + "; Tandem needs that of CUDA 12 or later");
    function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(found);
  };
  Library l;
  find("cublasCreate_v2", l.create);
  find("cublasSetStream_v2", l.set_stream);
  find("cublasSetWorkspace_v2", l.set_workspace);
  find("cublasGemmEx_64", l.gemm);
  find("cublasGetStatusString", l.status_string);
  return l;
}

const Library& library() {
  static const Library loaded = load();
  return loaded;
}

void check(cublasStatus_t status, const char* what) {
  if (status == CUBLAS_STATUS_SUCCESS) return;
  throw DeviceError(std::string("cuda: ") + what + ": " + library().status_string(status));
}

// One for each stream, with a workspace of its own: cuBLAS repeats its results to the bit only so.
cublasHandle_t handle(Device device) {
  constexpr size_t kWorkspace = size_t{32} << 20;
  static std::mutex mutex;
  static std::map<cudaStream_t, cublasHandle_t> handles;
  const cudaStream_t s = stream(device);
  std::lock_guard lock(mutex);
  cublasHandle_t& h = handles[s];
  if (h) return h;
  void* workspace = nullptr;
  check(library().create(&h), "cublasCreate");
  check(library().set_stream(h, s), "cublasSetStream");
  TANDEM_CUDA(cudaMalloc(&workspace, kWorkspace));
  check(library().set_workspace(h, workspace, kWorkspace), "cublasSetWorkspace");
  return h;
}

cublasComputeType_t compute_type(Math math) {
  return math == Math::tf32   ? CUBLAS_COMPUTE_32F_FAST_TF32
         : math == Math::bf16 ? CUBLAS_COMPUTE_32F_FAST_16BF
                              : CUBLAS_COMPUTE_32F;
}

}  // namespace

// cuBLAS thinks in columns: our rows are its columns, and c^T = op(b)^T op(a)^T.
template <class T>
void gemm(Device device, const Gemm<T>& g, Math math) {
  if (g.m == 0 || g.n == 0) return;
  if (g.k == 0) {
    if (!g.accumulate) TANDEM_CUDA(cudaMemset2DAsync(g.c, g.ldc * sizeof(T), 0, g.n * sizeof(T), g.m, stream(device)));
    return;
  }
  const T one = 1, factor = g.accumulate ? 1 : 0;
  const cudaDataType_t type = sizeof(T) == 4 ? CUDA_R_32F : CUDA_R_64F;
  const cublasComputeType_t compute = sizeof(T) == 4 ? compute_type(math) : CUBLAS_COMPUTE_64F;
  check(library().gemm(handle(device), g.transpose_b ? CUBLAS_OP_T : CUBLAS_OP_N,
                       g.transpose_a ? CUBLAS_OP_T : CUBLAS_OP_N, g.n, g.m, g.k, &one, g.b, type, g.ldb, g.a, type,
                       g.lda, &factor, g.c, type, g.ldc, compute, CUBLAS_GEMM_DEFAULT),
        "cublasGemmEx");
}
template void gemm(Device, const Gemm<float>&, Math);
template void gemm(Device, const Gemm<double>&, Math);

}  // namespace tandem::cuda
