#include "tandem/cuda/block.h"

namespace tandem::cuda {
namespace {

template <class T>
struct NoteOneStep {
  static constexpr int threads = 256;
  struct Shared {
    int partial[threads / kWarp];
  };
  const T *loss, *logits;
  const int32_t* label;
  double* records;
  int64_t* count;
  int64_t rows, classes, capacity;

  TANDEM_DEVICE void operator()(const Block& block, Shared& shared) const {
    int correct = 0;
    for (int64_t i = block.thread; i < rows; i += threads) {
      const T* row = logits + i * classes;
      int64_t best = 0;
      for (int64_t c = 1; c < classes; ++c) best = row[c] > row[best] ? c : best;
      correct += best == label[i];
    }
    correct = block_sum(block, correct, shared.partial);
    if (block.thread != 0) return;
    double* record = records + *count % capacity * 2;
    record[0] = static_cast<double>(*loss);
    record[1] = static_cast<double>(correct);
    ++*count;
  }
};

}  // namespace
}  // namespace tandem::cuda

namespace tandem {
using namespace cuda;

void run(Cuda, const NoteStep& k) {
  floating(k.logits.dtype, [&]<class T>(T) {
    launch(k.logits.device, 1,
           NoteOneStep<T>{k.loss.as<T>(), k.logits.as<T>(), k.label.as<int32_t>(), k.records.as<double>(),
                          k.count.as<int64_t>(), k.logits.dims[0], k.logits.dims[1], k.records.dims[0]});
  });
}

}  // namespace tandem
