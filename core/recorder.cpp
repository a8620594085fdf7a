#include "tandem/core/recorder.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>

#include "tandem/core/compile.h"
#include "tandem/core/tensor_impl.h"

namespace tandem {
namespace {

std::atomic<uint64_t> recordings{0};

// A range of addresses that no other recording has had of late: what was made in one is not taken for another's.
char* range_of(uint64_t id) {
  constexpr uint64_t first = uint64_t{1} << 60, bytes = uint64_t{1} << 42, ranges = uint64_t{1} << 17;
  return reinterpret_cast<char*>(first + id % ranges * bytes);
}

struct HostCall : Call {
  HostCall(const char* called, const View& view, std::function<void(const View&)> code)
      : name_(called), value(view), f(std::move(code)) {
    operands.push_back({"value", &value, Use::inout, nullptr});  // nothing that reads it goes before
  }
  const char* name() const override { return name_; }
  void run() const override { f(value); }
  std::unique_ptr<Call> clone() const override { return std::make_unique<HostCall>(name_, value, f); }
  std::string scalars() const override { return ""; }
  bool on_host() const override { return true; }

  const char* name_;
  View value;
  std::function<void(const View&)> f;
};

}  // namespace

constinit thread_local Recorder* recorder = nullptr;

Recorder::Recorder() : id(++recordings), before_(recorder) {
  recording.begin = recording.end = range_of(id);
  recorder = this;
}

Recording Recorder::finish() {
  recorder = before_;
  for (auto& leaf : recording.leaves) {
    leaf.after = leaf.impl->grad;
    leaf.impl->grad = leaf.before;
  }
  return std::move(recording);
}

void* Recorder::allocate(size_t bytes) {
  char* address = recording.end;
  recording.end += (bytes + 63) / 64 * 64 + 64;  // an empty tensor has an address of its own too
  return address;
}

void Recorder::add(std::vector<std::shared_ptr<Storage>>& list, const std::shared_ptr<Storage>& storage) const {
  if (storage->recording != 0) return;
  for (const Tensor& input : recording.inputs) {
    if (TensorAccess::impl(input)->storage == storage) return;
  }
  for (const auto& other : list) {
    if (other == storage) return;
  }
  list.push_back(storage);
}

void Recorder::gradient(const std::shared_ptr<Tensor::Impl>& leaf, bool reads) {
  for (const auto& other : recording.leaves) {
    if (other.impl == leaf) return;
  }
  recording.leaves.push_back({leaf, leaf->grad, {}, reads});
}

#define TANDEM_RECORD(K) \
  void record_call(const K& k) { recorder->recording.calls.push_back(std::make_unique<CallOf<K>>(k)); }
TANDEM_KERNELS(TANDEM_RECORD)

void on_host(const char* name, const View& value, std::function<void(const View&)> f) {
  if (!recorder) return f(value);
  recorder->recording.calls.push_back(std::make_unique<HostCall>(name, value, std::move(f)));
}

Recording record_step(const StepFunction& step, const std::vector<Tensor>& inputs) {
  Recorder recorder;
  recorder.recording.inputs = inputs;
  std::vector<Tensor> outputs;
  try {
    for (const Tensor& input : inputs) {
      if (input.requires_grad()) refuse_to_record("takes an input that requires a gradient");
    }
    outputs = step(inputs);
    if (!recorder.refusal.empty()) throw NotRecordable(recorder.refusal);
    for (Tensor& output : outputs) {
      output = output.detach();
      for (const Tensor& input : inputs) {
        if (View(output).data == View(input).data) refuse_to_record("returns one of its inputs");
      }
    }
  } catch (...) {
    recorder.finish();
    throw;
  }
  Recording recording = recorder.finish();
  recording.outputs = std::move(outputs);
  return recording;
}

void refuse_to_record(const char* what) {
  if (!recorder) return;
  if (recorder->refusal.empty()) recorder->refusal = fmt::format("compile: the step {}", what);
  throw NotRecordable(recorder->refusal);
}

void check_has_memory(const Storage& storage) {
  if (storage.recording == 0 || (recorder && recorder->id == storage.recording)) return;
  refuse_to_record(
      "reads a tensor that an earlier run of it made; it must change what it keeps in place, not replace the handle");
  throw ValueError(
      "tensor: it was made while a step was recorded and has no values; have the step return it instead of keeping it");
}

std::string scalar_text(double value) { return fmt::format("{}", value); }
std::string scalar_text(const Shape& shape) { return to_string(shape); }
std::string scalar_text(const Window& w) {
  return fmt::format("{}/s{}/p{}/d{}", to_string(w.kernel), to_string(w.stride), to_string(w.padding),
                     to_string(w.dilation));
}

Places::Places(const std::vector<Tensor>& inputs) {
  for (const Tensor& input : inputs) {
    const View v = input;
    ranges_.emplace_back(static_cast<char*>(v.data), std::max<int64_t>(1, v.dims.numel() * size_of(v.dtype)));
  }
}

std::optional<Places::Place> Places::find(const void* address) const {
  for (size_t i = 0; i < ranges_.size(); ++i) {
    const int64_t offset = static_cast<const char*>(address) - ranges_[i].first;
    if (offset >= 0 && offset < ranges_[i].second) return Place{i, offset};
  }
  return std::nullopt;
}

std::string Places::Place::text() const {
  return offset == 0 ? fmt::format("input{}", input) : fmt::format("input{}+{}", input, offset);
}

std::string Recording::text() const {
  std::map<const void*, std::string> names;
  const Places places(inputs);
  const auto name = [&](const void* address) {
    if (made_here(address)) return fmt::format("t{}", names.size());
    const auto place = places.find(address);
    return place ? place->text() : fmt::format("{}", address);
  };
  std::string text;
  for (const auto& call : calls) {
    text += call->name();
    for (const Call::Operand& o : call->operands) {
      auto found = names.find(o.view->data);
      if (found == names.end()) found = names.emplace(o.view->data, name(o.view->data)).first;
      text += fmt::format(" {}={} {}{}", o.name, found->second, name_of(o.view->dtype), to_string(o.view->dims));
    }
    text += fmt::format(" {}\n", call->scalars());
  }
  return text;
}

}  // namespace tandem
