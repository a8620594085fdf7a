#include "tandem/data/data_loader.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <numeric>
#include <optional>
#include <system_error>
#include <vector>

#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"
#include "tandem/core/ops.h"
#include "tandem/core/ops/check.h"
#include "tandem/core/random.h"
#include "tandem/core/threads.h"
#include "tandem/data/prefetcher.h"

namespace tandem {
namespace {

// What an epoch's batches are made of: the row of each position, and how its image moves (see Rows).
struct EpochPlan {
  int64_t epoch;
  std::vector<int32_t> rows, shifts;
};

// From here on, skipping zeros costs a linear layer more than it saves. Measured where zeros lie anyhow; in images they
// lie together, and it is worth while for longer.
constexpr double kDense = 0.25;

bool mostly_zero(const Dataset& data) {
  const Tensor rows = slice(data.x, 0, data.begin, data.begin + std::min<int64_t>(data.count, 1000));
  const std::vector<float> values = rows.to(Dtype::float32).to_vector<float>();
  const int64_t zeros = std::count(values.begin(), values.end(), 0.0f);
  return static_cast<double>(rows.numel() - zeros) < kDense * static_cast<double>(rows.numel());
}

void check(const Dataset& data, const DataLoaderOptions& options) {
  const bool whole = data.x.defined() && data.y.defined() && data.x.rank() >= 2 && data.y.rank() == 1 &&
                     data.y.dtype() == Dtype::int32 && data.x.dim(0) == data.y.dim(0) && data.begin >= 0 &&
                     data.count >= 1 && data.begin <= data.x.dim(0) - data.count;
  if (!whole) throw ValueError("DataLoader: expected a data set with rows; make one with Dataset::from");
  if (options.batch_size < 1) {
    throw ValueError(fmt::format("DataLoader: expected a batch_size of at least 1, got {}", options.batch_size));
  }
  if (options.last_batch == LastBatch::drop && options.batch_size > data.size()) {
    throw ValueError(
        fmt::format("DataLoader: expected a batch_size of at most the {} rows of {}, got {}; "
                    "no batch would be left, use a smaller one or LastBatch::keep",
                    data.size(), data.name, options.batch_size));
  }
  if (!is_floating(options.dtype)) {
    throw ValueError(fmt::format("DataLoader: expected a dtype of float32 or float64, got {}", name_of(options.dtype)));
  }
  if (options.shift == 0) return;
  if (data.x.rank() != 4 || data.x.dtype() != Dtype::uint8) {
    throw ValueError(fmt::format("DataLoader: expected uint8 images x[N, H, W, C] to shift, got {} {}",
                                 name_of(data.x.dtype()), describe("x", data.x)));
  }
  const int64_t most = std::min(data.x.dim(1), data.x.dim(2)) - 1;
  if (options.shift < 0 || options.shift > most) {
    throw ValueError(fmt::format("DataLoader: expected a shift of 0 to {} for {}, got {}", most, describe("x", data.x),
                                 options.shift));
  }
}

}  // namespace

LastBatch parse_last_batch(const std::string& name) {
  if (name == "keep") return LastBatch::keep;
  if (name == "drop") return LastBatch::drop;
  if (name == "merge") return LastBatch::merge;
  throw ValueError(fmt::format("last batch: expected keep, drop or merge, got '{}'", name));
}

struct DataLoader::State {
  Dataset data;
  DataLoaderOptions options;
  Tensor x, y;  // data.x and data.y on the loader's device, floats in its dtype
  bool mostly_zero;
  int64_t next_epoch = 0;

  std::mutex mutex;                           // guards `plans`: the prefetching thread asks for batches too
  std::shared_ptr<const EpochPlan> plans[2];  // of an even and of an odd epoch: the next may be drawn ahead

  int64_t prefetched_epoch = -1;
  std::optional<Prefetcher<Batch>> prefetcher;  // last: ends before what its thread uses

  int64_t batches() const {
    const int64_t whole = data.size() / options.batch_size, rest = data.size() % options.batch_size;
    if (options.last_batch == LastBatch::keep) return whole + (rest > 0);
    return options.last_batch == LastBatch::merge && whole == 0 ? 1 : whole;
  }
  int64_t samples() const {
    return options.last_batch == LastBatch::drop ? batches() * options.batch_size : data.size();
  }
  int64_t rows_of_batch(int64_t index) const {
    if (index < 0 || index >= batches())
      throw ValueError(fmt::format("DataLoader: expected a batch of 0 to {}, got {}", batches() - 1, index));
    return index + 1 == batches() ? samples() - index * options.batch_size : options.batch_size;
  }
  std::vector<int32_t> order(int64_t epoch) const;
  std::shared_ptr<const EpochPlan> plan_of(int64_t epoch);
  Rows rows(int64_t epoch, int64_t index);
  Batch gather(const Tensor& rows, const Tensor& shifts, int64_t begin, int64_t end);
  Batch make(int64_t epoch, int64_t index);
};

std::vector<int32_t> DataLoader::State::order(int64_t epoch) const {
  std::vector<int32_t> rows(data.size());
  if (options.shuffle) {
    rows = Stream(options.seed, "shuffle/" + std::to_string(epoch)).permutation(data.size());
  } else {
    std::iota(rows.begin(), rows.end(), 0);
  }
  rows.resize(samples());
  for (int32_t& row : rows) row += static_cast<int32_t>(data.begin);
  return rows;
}

std::shared_ptr<const EpochPlan> DataLoader::State::plan_of(int64_t epoch) {
  std::lock_guard lock(mutex);
  std::shared_ptr<const EpochPlan>& plan = plans[epoch % 2];
  if (plan && plan->epoch == epoch) return plan;
  EpochPlan made{epoch, order(epoch), {}};
  if (options.shift > 0) {
    const Stream stream(options.seed, "augment/" + std::to_string(epoch));
    made.shifts.resize(2 * made.rows.size());
    for (size_t i = 0; i < made.shifts.size(); ++i) {
      made.shifts[i] =
          static_cast<int32_t>(static_cast<int64_t>(stream.below(i, 2 * options.shift + 1)) - options.shift);
    }
  }
  plan = std::make_shared<const EpochPlan>(std::move(made));
  return plan;
}

DataLoader::Rows DataLoader::State::rows(int64_t epoch, int64_t index) {
  if (epoch < 0 || index < 0 || index >= batches()) {
    throw ValueError(
        fmt::format("DataLoader: expected a batch of 0 to {} in an epoch of at least 0, got batch {} "
                    "of epoch {}",
                    batches() - 1, index, epoch));
  }
  const std::shared_ptr<const EpochPlan> plan = plan_of(epoch);
  const int64_t first = index * options.batch_size, end = first + rows_of_batch(index);
  Rows taken{{plan->rows.begin() + first, plan->rows.begin() + end}, {}};
  if (options.shift > 0) taken.shifts.assign(plan->shifts.begin() + 2 * first, plan->shifts.begin() + 2 * end);
  return taken;
}

Batch DataLoader::State::gather(const Tensor& all_rows, const Tensor& all_shifts, int64_t begin, int64_t end) {
  const int64_t all = all_rows.numel(), n = end - begin;
  if (all_rows.rank() != 1 || all_rows.dtype() != Dtype::int32 || (options.shift > 0) != all_shifts.defined() ||
      (all_shifts.defined() && (all_shifts.shape() != Shape{all, 2} || all_shifts.dtype() != Dtype::int32))) {
    throw ShapeError(fmt::format("DataLoader: expected rows int32 [n]{}, got {}{}",
                                 options.shift > 0 ? " and shifts int32 [n, 2]" : "", describe("rows", all_rows),
                                 all_shifts.defined() ? " and " + describe("shifts", all_shifts) : ""));
  }
  if (begin < 0 || end < begin || end > all) {
    throw ShapeError(
        fmt::format("DataLoader: expected a part of {}, got [{}, {})", describe("rows", all_rows), begin, end));
  }
  const View rows = rows_of(all_rows, begin, end);
  const View shifts = all_shifts.defined() ? rows_of(all_shifts, begin, end) : View();
  check_index(rows, x.dim(0), Asker::gather_rows);
  Batch batch{empty(x.shape().with(0, n), {options.dtype, options.device}), empty({n}, {Dtype::int32, options.device})};
  if (x.dtype() == Dtype::uint8) {
    GatherImages gather{x, rows, shifts, batch.x, 1.0 / 255};
    if (x.rank() != 4) {  // rows of any shape are images of one column
      gather.images.dims = {x.dim(0), x.numel() / x.dim(0), 1, 1};
      gather.y.dims = gather.images.dims.with(0, n);
    }
    launch(gather);
  } else {
    launch(GatherRows{x, rows, batch.x});
  }
  launch(GatherRows{y, rows, batch.y});
  batch.x.set_mostly_zero(mostly_zero);
  return batch;
}

Batch DataLoader::State::make(int64_t epoch, int64_t index) {
  const Rows taken = rows(epoch, index);
  const int64_t n = static_cast<int64_t>(taken.rows.size());
  return gather(Tensor::from(taken.rows, {n}, options.device),
                taken.shifts.empty() ? Tensor() : Tensor::from(taken.shifts, {n, 2}, options.device), 0, n);
}

DataLoader::DataLoader(Dataset data, DataLoaderOptions options) : state_(new State) {
  check(data, options);
  state_->x = data.x.to(options.device);
  if (is_floating(data.x.dtype())) state_->x = state_->x.to(options.dtype);
  state_->y = data.y.to(options.device);
  state_->mostly_zero = mostly_zero(data);
  state_->data = std::move(data);
  state_->options = options;
}

DataLoader::~DataLoader() = default;
DataLoader::DataLoader(DataLoader&&) noexcept = default;

int64_t DataLoader::batches() const { return state_->batches(); }
int64_t DataLoader::samples() const { return state_->samples(); }
int64_t DataLoader::rows_of_batch(int64_t index) const { return state_->rows_of_batch(index); }
const Dataset& DataLoader::data() const { return state_->data; }
int64_t DataLoader::epoch() const { return state_->next_epoch; }
std::vector<int32_t> DataLoader::order(int64_t epoch) const { return state_->order(epoch); }
Batch DataLoader::batch(int64_t epoch, int64_t index) const { return state_->make(epoch, index); }
DataLoader::Rows DataLoader::rows(int64_t epoch, int64_t index) const { return state_->rows(epoch, index); }
Batch DataLoader::gather(const Tensor& rows, const Tensor& shifts) const {
  return gather(rows, shifts, 0, rows.numel());
}
Batch DataLoader::gather(const Tensor& rows, const Tensor& shifts, int64_t begin, int64_t end) const {
  return state_->gather(rows, shifts, begin, end);
}

void DataLoader::set_epoch(int64_t epoch) {
  if (epoch < 0) throw ValueError(fmt::format("DataLoader: expected an epoch of at least 0, got {}", epoch));
  state_->next_epoch = epoch;
}

DataLoader::Iterator DataLoader::begin() {
  State& state = *state_;
  const int64_t epoch = state.next_epoch++;
  if (state.options.prefetch && state.options.device.kind == Device::Kind::cpu) {  // a GPU works ahead by itself
    state.prefetched_epoch = epoch;
    try {
      state.prefetcher.emplace(state.batches(), [&state, epoch](int64_t index) {
        const SingleThreaded one_core;  // the other cores train
        return state.make(epoch, index);
      });
    } catch (const std::system_error& error) {  // the batches are the same
      warn(fmt::format("DataLoader: no thread to prefetch with ({}); going on without", error.what()));
    }
  }
  return {this, epoch, 0};
}

DataLoader::Iterator DataLoader::end() { return {this, state_->next_epoch, state_->batches()}; }

// A batch that was prefetched can be taken once; asked for again, it is made again, and is the same.
Batch DataLoader::Iterator::operator*() const {
  State& state = *loader->state_;
  const bool prefetched = state.prefetcher && state.prefetched_epoch == epoch;
  if (prefetched && state.prefetcher->next() == index && index < state.batches()) {
    return state.prefetcher->take();
  }
  return state.make(epoch, index);
}

DataLoader::Iterator& DataLoader::Iterator::operator++() {
  ++index;
  return *this;
}

}  // namespace tandem
