#include "tandem/core/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "tandem/core/parallel.h"
#include "tandem/core/tensor_impl.h"

namespace tandem {
namespace {

int64_t row_bytes(const View& v) { return v.dims[0] == 0 ? 0 : v.dims.numel() / v.dims[0] * size_of(v.dtype); }
int64_t bytes_of(const View& v) { return v.dims.numel() * size_of(v.dtype); }
int64_t aligned(int64_t bytes) { return (bytes + 63) / 64 * 64; }
bool by_rows(Use use) { return use == Use::rows_in || use == Use::rows_out; }

bool same_storage(const Tensor& a, const Tensor& b) {
  if (a.defined() != b.defined()) return false;
  return !a.defined() || TensorAccess::impl(a)->storage == TensorAccess::impl(b)->storage;
}

}  // namespace

Chunking row_chunks(const Call& call) {
  const Chunking whole{1, 1};
  const Shape* rows = nullptr;
  for (const Call::Operand& o : call.operands) {
    if (o.use == Use::out || o.use == Use::inout) return whole;
    if (!by_rows(o.use)) continue;
    if (rows && o.view->dims[0] != (*rows)[0]) return whole;
    if (!rows || o.view->dims.rank() > rows->rank()) rows = &o.view->dims;
  }
  return rows && rows->rank() >= 3 && rows->numel() > 0 ? chunking(*rows) : whole;
}

std::vector<int> groups(const Program& program, bool block) {
  std::vector<int> group;
  std::vector<View> written, partial, read_whole;  // in the group; partial: sums and slots
  const auto holds = [](const std::vector<View>& views, const View& view) {
    return std::any_of(views.begin(), views.end(), [&](const View& each) { return overlap(each, view); });
  };
  Chunking current{1, 1};
  int id = 0;
  for (const auto& call : program.calls) {
    const Chunking cut = block ? row_chunks(*call) : Chunking{1, 1};
    const bool waits = std::any_of(call->operands.begin(), call->operands.end(), [&](const Call::Operand& o) {
      if (writes(o.use)) return holds(read_whole, *o.view);
      return holds(o.use == Use::in ? written : partial, *o.view);
    });
    if (waits || cut.chunks() == 1 || cut.n != current.n || cut.rows != current.rows) {
      ++id;
      written.clear();
      partial.clear();
      read_whole.clear();
    }
    current = cut;
    for (const Call::Operand& o : call->operands) {
      if (writes(o.use)) written.push_back(*o.view);
      if (o.use == Use::sum || o.use == Use::slots) partial.push_back(*o.view);
      if (o.use == Use::in) read_whole.push_back(*o.view);
    }
    group.push_back(id);
  }
  return group;
}

Plan::Plan(Recording recording, const CompileOptions& options, int threads)
    : text_(recording.text()),
      wants_graph_(options.graph),
      leaves_(std::move(recording.leaves)),
      changed_(std::move(recording.changed)),
      outside_(std::move(recording.outside)) {
  inputs_ = Places(recording.inputs);
  find_device(recording);
  keep_what_escapes(recording, options.keep_gradients);
  program_.calls = std::move(recording.calls);
  program_.begin = recording.begin;
  program_.end = recording.end;
  for (const auto& [address, storage] : escaped_) program_.escaped.insert(address);
  if (options.fuse) fuse(program_);
  if (options.fuse && device_.kind == Device::Kind::cuda) fuse_loss(program_);
  const bool block = options.block && device_.kind == Device::Kind::cpu;  // a GPU has threads for the whole batch
  if (block) pack(program_);
  if (block && options.order) order(program_);
  if (block && options.recompute) recompute(program_);
  group_ = groups(program_, block);
  place(threads);
  expand(threads);
}

// Throws NotRecordable for a step that a replay could not run on one device.
void Plan::find_device(const Recording& recording) {
  bool first = true, host_code = false;
  for (const auto& call : recording.calls) {
    host_code |= call->on_host();
    for (const Call::Operand& o : call->operands) {
      if (std::exchange(first, false)) device_ = o.view->device;
      if (!(o.view->device == device_))
        throw NotRecordable(fmt::format("compile: the step uses tensors on {} and on {}", to_string(device_),
                                        to_string(o.view->device)));
      if (device_.kind == Device::Kind::cuda && writes(o.use) && inputs_.find(o.view->data))
        throw NotRecordable("compile: the step changes one of its inputs, which are copied on a GPU");
    }
  }
  if (host_code && device_.kind == Device::Kind::cuda)
    throw NotRecordable("compile: the step has code for the host in between");
  taken_inputs_.resize(inputs_.size());
}

// What the step returns, and gradients that are kept, get memory of their own.
void Plan::keep_what_escapes(Recording& recording, bool keep_gradients) {
  outputs_ = std::move(recording.outputs);
  std::set<const Storage*> kept;
  for (Recording::Leaf& leaf : leaves_) {
    if (!keep_gradients && !same_storage(leaf.before, leaf.after)) leaf.after = {};
    if (!leaf.reads_before) leaf.before = {};
    if (leaf.after.defined()) kept.insert(TensorAccess::impl(leaf.after)->storage.get());
  }
  for (const Tensor& output : outputs_) kept.insert(TensorAccess::impl(output)->storage.get());
  for (const auto& made : recording.made) {
    const auto storage = made.lock();
    if (!storage) continue;
    if (kept.count(storage.get()) == 0)
      throw NotRecordable(
          "compile: the step keeps a tensor that it made; have it return the tensor, or copy_from() into one that was "
          "there before");
    escaped_.emplace(storage->data, storage);
  }
  for (const auto& [address, storage] : escaped_) storage->take_memory();
}

// Every temporary gets the lowest place that no other holds while it lives.
void Plan::place(int threads) {
  for (size_t i = 0; i < program_.calls.size(); ++i) {
    const Call& call = *program_.calls[i];
    const Chunking cut = row_chunks(call);
    const bool grouped = (i > 0 && group_[i - 1] == group_[i]) || (i + 1 < group_.size() && group_[i + 1] == group_[i]);
    for (const Call::Operand& o : call.operands) {
      if (!program_.temporary(o.view->data)) continue;
      const auto [it, fresh] = buffers_.try_emplace(o.view->data);
      Buffer& b = it->second;
      if (fresh) {
        if (!writes(o.use))  // concat writes to what is empty
          throw NotRecordable("compile: the step reads a part of a tensor that it made");
        b = {0, 0, group_[i], group_[i], true, by_rows(o.use) ? row_bytes(*o.view) : 0, cut.rows};
      }
      b.bytes = std::max(b.bytes, aligned(bytes_of(*o.view)));
      b.last = group_[i];
      b.scratch = b.scratch && b.first == b.last && by_rows(o.use) && grouped && cut.chunks() > 1;
    }
  }
  std::vector<Buffer*> todo, done;
  for (auto& [address, b] : buffers_) {
    if (b.scratch) b.bytes = threads * aligned(b.chunk_rows * b.row_bytes);
    todo.push_back(&b);
  }
  std::stable_sort(todo.begin(), todo.end(), [](const Buffer* a, const Buffer* b) { return a->bytes > b->bytes; });
  int64_t size = 0;
  for (Buffer* b : todo) {
    for (bool moved = true; moved;) {
      moved = false;
      for (const Buffer* d : done) {
        const bool together = b->first <= d->last && d->first <= b->last;
        if (!together || b->offset >= d->offset + d->bytes || d->offset >= b->offset + b->bytes) continue;
        b->offset = d->offset + d->bytes;
        moved = true;
      }
    }
    done.push_back(b);
    size = std::max(size, b->offset + b->bytes);
  }
  arena_ = std::make_unique<Storage>(static_cast<size_t>(size), device_);
}

// Groups into chunks, made-up addresses into real ones. A slot takes neighbouring lanes, and has its own scratch.
void Plan::expand(int threads) {
  sites_.resize(inputs_.size());
  for (size_t i = 0; i < inputs_.size(); ++i) bound_.push_back(inputs_.begin(i));
  for (size_t begin = 0, end; begin < program_.calls.size(); begin = end) {
    for (end = begin + 1; end < group_.size() && group_[end] == group_[begin];) ++end;
    Chunking cut = row_chunks(*program_.calls[begin]);
    if (end - begin == 1) cut = {1, 1};  // alone, a kernel shares itself out among threads
    const int64_t slots = std::min<int64_t>(threads, cut.lanes());
    Group group;
    group.slots.resize(static_cast<size_t>(slots));
    for (int64_t chunk = 0, lane = 0; chunk < cut.chunks(); ++chunk) {
      while (cut.lane_begin(lane + 1) <= cut.chunk_begin(chunk)) ++lane;
      const int64_t slot = lane * slots / cut.lanes();
      for (size_t i = begin; i < end; ++i) {
        auto call = program_.calls[i]->clone();
        resolve(*call, chunk, lane, slot, cut);
        group.slots[static_cast<size_t>(slot)].push_back(std::move(call));
      }
    }
    groups_.push_back(std::move(group));
  }
}

void Plan::resolve(Call& call, int64_t chunk, int64_t lane, int64_t slot, const Chunking& cut) {
  for (const Call::Operand& o : call.operands) {
    View& v = *o.view;
    const auto buffer = buffers_.find(v.data);
    const bool scratch = buffer != buffers_.end() && buffer->second.scratch;
    int64_t offset = 0;
    if (cut.chunks() > 1 && o.use != Use::in) {
      const int64_t row = by_rows(o.use) ? cut.chunk_begin(chunk) : o.use == Use::sum ? lane : chunk;
      const int64_t rows = by_rows(o.use) ? cut.chunk_begin(chunk + 1) - row : 1;
      offset = scratch ? slot * aligned(buffer->second.chunk_rows * buffer->second.row_bytes) : row * row_bytes(v);
      v.dims = v.dims.with(0, rows);
      if (o.add) *o.add = *o.add || cut.chunk_begin(chunk) != cut.lane_begin(lane);
    }
    char* base = static_cast<char*>(v.data);
    if (buffer != buffers_.end())
      base = static_cast<char*>(arena_->data) + buffer->second.offset;
    else if (const auto kept = escaped_.find(v.data); kept != escaped_.end())
      base = static_cast<char*>(kept->second->data);
    if (const auto place = inputs_.find(v.data)) sites_[place->input].push_back({&v, place->offset + offset});
    v.data = base + offset;
  }
}

void Plan::take_inputs(const std::vector<Tensor>& inputs) {
  for (size_t i = 0; i < inputs.size(); ++i) {
    void* data = View(inputs[i]).data;
    if (std::unique_ptr<Storage>& own = taken_inputs_[i]; own || (graph_ && data != bound_[i])) {
      if (!own) own = std::make_unique<Storage>(inputs[i].numel() * size_of(inputs[i].dtype()), device_);
      cuda::copy(own->data, device_, data, device_, own->bytes);
      data = own->data;
    }
    if (data == bound_[i]) continue;
    graph_.reset();
    for (const Site& site : sites_[i]) site.view->data = static_cast<char*>(data) + site.offset;
    bound_[i] = data;
  }
}

void Plan::run_calls() const {
  for (const Group& group : groups_) {
    parallel_for(static_cast<int64_t>(group.slots.size()), [&](int64_t slot) {
      for (const auto& call : group.slots[static_cast<size_t>(slot)]) call->run();
    });
  }
}

void Plan::replay(const std::vector<Tensor>& inputs) {
  take_inputs(inputs);
  for (const auto& storage : changed_) ++storage->version;
  for (const auto& [address, storage] : escaped_) ++storage->version;
  if (warm_ && wants_graph_ && device_.kind == Device::Kind::cuda) {
    if (!graph_) graph_ = std::make_unique<cuda::Graph>(device_, [this] { run_calls(); });
    graph_->launch();
  } else {
    run_calls();
  }
  warm_ = true;
  for (const Recording::Leaf& leaf : leaves_) {
    if (!same_storage(leaf.impl->grad, leaf.after)) leaf.impl->grad = leaf.after;
  }
}

bool Plan::makes(const Tensor& tensor) const {
  return std::any_of(escaped_.begin(), escaped_.end(),
                     [&](const auto& kept) { return kept.second == TensorAccess::impl(tensor)->storage; });
}

bool Plan::gradients_fit() const {
  return std::all_of(leaves_.begin(), leaves_.end(), [](const Recording::Leaf& leaf) {
    return !leaf.reads_before || same_storage(leaf.impl->grad, leaf.before);
  });
}

std::vector<View> Plan::changes() const {
  std::map<void*, View> found;
  for (const auto& call : program_.calls) {
    if (call->on_host()) continue;
    for (const Call::Operand& o : call->operands) {
      const bool ours = o.view->data >= program_.begin && o.view->data < program_.end;
      if (ours || !writes(o.use) || inputs_.find(o.view->data)) continue;
      View& largest = found.try_emplace(o.view->data, *o.view).first->second;
      if (bytes_of(*o.view) > bytes_of(largest)) largest = *o.view;
    }
  }
  std::vector<View> changes;
  for (const auto& [address, view] : found) changes.push_back(view);
  return changes;
}

void Plan::poison() {
  if (device_.kind == Device::Kind::cuda)
    cuda::fill_bytes(arena_->data, device_, 0xff, arena_->bytes);
  else
    std::memset(arena_->data, 0xff, arena_->bytes);
}

std::string Plan::name_of_buffer(const void* address, const std::vector<std::pair<std::string, Tensor>>& names) const {
  if (const auto place = inputs_.find(address)) return place->text();
  for (size_t i = 0; i < outputs_.size(); ++i) {
    const auto kept = escaped_.find(address);
    if (kept != escaped_.end() && TensorAccess::impl(outputs_[i])->storage == kept->second)
      return fmt::format("output{}", i);
  }
  for (const auto& [name, tensor] : names) {
    if (View(tensor).data == address) return name;
    if (const auto kept = escaped_.find(address);
        kept != escaped_.end() && tensor.grad().defined() && View(tensor.grad()).data == kept->second->data)
      return name + ".grad";
  }
  const auto buffer = buffers_.find(address);
  if (buffer == buffers_.end()) return "state";
  return fmt::format("{}{}", buffer->second.scratch ? "scratch" : "t", std::distance(buffers_.begin(), buffer));
}

std::string Plan::text(const std::vector<std::pair<std::string, Tensor>>& names) const {
  std::string text;
  for (size_t i = 0; i < program_.calls.size(); ++i) {
    const Call& call = *program_.calls[i];
    const bool opens = i == 0 || group_[i] != group_[i - 1];
    const bool alone = opens && (i + 1 == group_.size() || group_[i + 1] != group_[i]);
    const Chunking cut = row_chunks(call);
    if (!alone && opens) text += fmt::format("{} times, {} rows each:\n", cut.chunks(), cut.rows);
    text += fmt::format("{}{}", alone ? "" : "  ", call.name());
    for (const Call::Operand& o : call.operands) {
      text += fmt::format(" {}={}{}", o.name, name_of_buffer(o.view->data, names), to_string(o.view->dims));
    }
    text += fmt::format(" {}\n", call.scalars());
  }
  return text;
}

}  // namespace tandem
