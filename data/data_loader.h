// DataLoader: batches of a Dataset, shuffled from a seed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "tandem/data/dataset.h"

namespace tandem {

// What happens to rows that do not fill a batch: a smaller last batch, none, or a larger one before it.
enum class LastBatch { keep, drop, merge };
LastBatch parse_last_batch(const std::string& name);  // throws ValueError listing the names

struct DataLoaderOptions {
  int64_t batch_size = 128;
  bool shuffle = true;
  uint64_t seed = 0;  // order of epoch e: stream "shuffle/e"; shifts: stream "augment/e"
  LastBatch last_batch = LastBatch::keep;
  int64_t shift = 0;      // random shifts of up to this many pixels each way (uint8 images [N, H, W, C])
  bool prefetch = false;  // make the next batch on a thread of its own, if one can be had
  Device device = {};
  Dtype dtype = Dtype::float32;  // of x: uint8 is divided by 255, floats are converted
};

struct Batch {
  Tensor x, y;  // x[B, ...] floating, y int32 [B]; x.mostly_zero() is the same for all batches of a data set
};

// Each begin() starts the next epoch (0, 1, 2, ...); set_epoch chooses it. Batches depend on the options and
// the epoch alone, not on prefetch or threads. An error in the loading thread is thrown by the iterator.
// The data set's elements must not change while a loader uses them. Throws ValueError: batch_size < 1 or so
// large that no batch is left, a dtype that is not floating, shifts larger than the images.
class DataLoader {
 public:
  DataLoader(Dataset data, DataLoaderOptions options = {});
  ~DataLoader();
  DataLoader(DataLoader&&) noexcept;

  int64_t batches() const;                     // per epoch
  int64_t samples() const;                     // per epoch: rows served
  int64_t rows_of_batch(int64_t index) const;  // throws ValueError for an index that is not in [0, batches())
  const Dataset& data() const;
  void set_epoch(int64_t epoch);
  int64_t epoch() const;  // the one that begin() will start next
  // Batch `index` of `epoch`, made here and now: for callers that walk by step.
  Batch batch(int64_t epoch, int64_t index) const;
  // What batch() does, in two halves: which rows of data().x batch `index` takes, int32 [n], and how their images move,
  // int32 [n, 2] {down, right} (empty without shifts), on the host; and the batch of such rows, whose tensors are on
  // the loader's device. A compiled step takes rows and shifts as inputs and gathers. Throws ShapeError, and ValueError
  // for a row that data().x does not have (on a GPU: whoever next waits for it does).
  struct Rows {
    std::vector<int32_t> rows, shifts;
  };
  Rows rows(int64_t epoch, int64_t index) const;
  Batch gather(const Tensor& rows, const Tensor& shifts = {}) const;
  // The same of [begin, end) of them.
  Batch gather(const Tensor& rows, const Tensor& shifts, int64_t begin, int64_t end) const;
  // The rows of data().x that an epoch serves, in order; their hash proves two runs saw the same batches.
  std::vector<int32_t> order(int64_t epoch) const;

  struct Iterator {
    Batch operator*() const;
    Iterator& operator++();
    bool operator!=(const Iterator& other) const { return index != other.index; }
    DataLoader* loader;
    int64_t epoch, index;
  };
  Iterator begin();
  Iterator end();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem
