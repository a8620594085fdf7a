#include "tandem/core/compile.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "tandem/core/autograd.h"
#include "tandem/core/cuda.h"
#include "tandem/core/parallel.h"
#include "tandem/core/plan.h"
#include "tandem/core/tensor_impl.h"
#include "tandem/core/text.h"

namespace tandem {
namespace {

std::atomic<uint64_t> structure_version{0};
constexpr size_t kMostPlans = 8;  // of one step: for a batch's tail, for other modes

// The first line in which two recordings differ.
std::string difference(const std::string& a, const std::string& b) {
  const std::vector<std::string> left = split(a, '\n'), right = split(b, '\n');
  for (size_t i = 0; i < std::max(left.size(), right.size()); ++i) {
    const std::string l = i < left.size() ? left[i] : "", r = i < right.size() ? right[i] : "";
    if (l != r) return fmt::format("call {} was \"{}\" and is \"{}\"", i, l, r);
  }
  return "nothing";
}

std::vector<char> bytes_of(const View& v) {
  std::vector<char> bytes(static_cast<size_t>(v.dims.numel() * size_of(v.dtype)));
  if (v.device.kind == Device::Kind::cuda)
    cuda::copy(bytes.data(), {}, v.data, v.device, bytes.size());
  else if (!bytes.empty())
    std::memcpy(bytes.data(), v.data, bytes.size());
  return bytes;
}
void put_bytes(const View& v, const std::vector<char>& bytes) {
  if (v.device.kind == Device::Kind::cuda)
    cuda::copy(v.data, v.device, bytes.data(), {}, bytes.size());
  else if (!bytes.empty())
    std::memcpy(v.data, bytes.data(), bytes.size());
}

// What a plan's graph belongs to, 0 on the CPU.
uint64_t stream_of(const std::vector<Tensor>& inputs) {
  return !inputs.empty() && inputs[0].device().kind == Device::Kind::cuda ? cuda::stream_id(inputs[0].device()) : 0;
}

std::vector<size_t> aliases(const std::vector<Tensor>& inputs) {
  std::vector<size_t> first(inputs.size());
  for (size_t i = 0; i < inputs.size(); ++i) {
    while (View(inputs[first[i]]).data != View(inputs[i]).data) ++first[i];
  }
  return first;
}

std::vector<Tensor> detached(std::vector<Tensor> tensors) {
  for (Tensor& t : tensors) t = t.detach();
  return tensors;
}

}  // namespace

void structure_changed() {
  if (!recorder) structure_version.fetch_add(1, std::memory_order_relaxed);
}

struct CompiledStep::State {
  struct Entry {
    std::vector<Shape> shapes;
    std::vector<Dtype> dtypes;
    std::vector<bool> hints;
    std::vector<size_t> alias;  // of each input the first one with the same elements
    bool gradients;
    int threads;
    uint64_t stream;
    uint64_t version;
    int64_t replays = 0;
    std::unique_ptr<Plan> plan;

    bool fits(const std::vector<Tensor>& inputs) const {
      if (inputs.size() != shapes.size() || gradients != grad_enabled() || threads != parallel_width()) return false;
      if (stream != stream_of(inputs)) return false;
      for (size_t i = 0; i < inputs.size(); ++i) {
        if (inputs[i].shape() != shapes[i] || inputs[i].dtype() != dtypes[i]) return false;
        if (inputs[i].mostly_zero() != hints[i]) return false;
      }
      if (aliases(inputs) != alias) return false;
      return plan->gradients_fit();
    }
  };

  Function step;
  CompileOptions options;
  std::vector<Entry> entries;  // the last used one in front
  std::string why_eager;
  int64_t calls = 0;

  Plan& plan_for(const std::vector<Tensor>& inputs);
  Entry plan_of(const std::vector<Tensor>& inputs);
  std::vector<Tensor> check(Plan& plan, const std::vector<Tensor>& inputs);
};

CompiledStep::CompiledStep(Function step, CompileOptions options)
    : state_(new State{std::move(step), options, {}, "", 0}) {}
CompiledStep::~CompiledStep() = default;
CompiledStep::CompiledStep(CompiledStep&&) noexcept = default;
CompiledStep& CompiledStep::operator=(CompiledStep&&) noexcept = default;

// Two recordings must be alike: what differs changes from step to step, and a replay would freeze it.
CompiledStep::State::Entry CompiledStep::State::plan_of(const std::vector<Tensor>& inputs) {
  const uint64_t version = structure_version;
  const std::string first = record_step(step, inputs).text();
  Recording second = record_step(step, inputs);
  if (first != second.text())
    throw NotRecordable("compile: two recordings of the step differ: " + difference(first, second.text()));
  Entry entry{{}, {}, {}, aliases(inputs), grad_enabled(), parallel_width(), stream_of(inputs), version, 0, {}};
  for (const Tensor& input : inputs) {
    entry.shapes.push_back(input.shape());
    entry.dtypes.push_back(input.dtype());
    entry.hints.push_back(input.mostly_zero());
  }
  entry.plan = std::make_unique<Plan>(std::move(second), options, entry.threads);
  return entry;
}

Plan& CompiledStep::State::plan_for(const std::vector<Tensor>& inputs) {
  const uint64_t version = structure_version;
  for (auto entry = entries.begin(); entry != entries.end(); ++entry) {
    if (!entry->fits(inputs)) continue;
    const bool changed = entry->version != version;
    const bool due = options.check_recording || (entry->replays & (entry->replays - 1)) == 0;
    if (changed || due) {
      const Recording now = record_step(step, inputs);
      if (!entry->plan->same_recording(now)) {
        if (changed) continue;
        throw ValueError("compile: the step is no longer what was recorded: " +
                         difference(entry->plan->recorded_text(), now.text()) +
                         "; what changes between steps must be in a tensor, or run the step eagerly");
      }
      entry->version = version;
    }
    ++entry->replays;
    std::rotate(entries.begin(), entry, entry + 1);
    return *entries.front().plan;
  }
  entries.insert(entries.begin(), plan_of(inputs));
  if (entries.size() > kMostPlans) entries.pop_back();
  return *entries.front().plan;
}

// Replays, puts everything back, runs the eager step and compares: outputs, gradients, and what else changed.
std::vector<Tensor> CompiledStep::State::check(Plan& plan, const std::vector<Tensor>& inputs) {
  const std::vector<View> changes = plan.changes();
  std::vector<std::vector<char>> before, replayed;
  std::vector<Tensor> gradients;
  for (const View& view : changes) before.push_back(bytes_of(view));
  for (const Recording::Leaf& leaf : plan.leaves()) gradients.push_back(leaf.impl->grad);
  plan.replay(inputs);
  for (const Tensor& output : plan.outputs()) replayed.push_back(bytes_of(output));
  for (const Recording::Leaf& leaf : plan.leaves()) {
    if (leaf.after.defined()) replayed.push_back(bytes_of(leaf.after));
  }
  std::vector<std::vector<char>> after;
  for (const View& view : changes) after.push_back(bytes_of(view));
  for (size_t i = 0; i < changes.size(); ++i) put_bytes(changes[i], before[i]);
  for (size_t i = 0; i < gradients.size(); ++i) plan.leaves()[i].impl->grad = gradients[i];

  const std::vector<Tensor> outputs = detached(step(inputs));
  std::vector<Tensor> eager = outputs;
  for (const Recording::Leaf& leaf : plan.leaves()) {
    if (leaf.after.defined())
      eager.push_back(leaf.impl->grad);
    else if (!options.keep_gradients)
      leaf.impl->grad = {};
  }
  const auto differ = [&](const char* what, size_t i, size_t bytes) {
    return ValueError(
        fmt::format("compile: step {} replayed and eager differ in {} {} of {} bytes; please report it, and "
                    "run eagerly meanwhile",
                    calls, what, i, bytes));
  };
  for (size_t i = 0; i < replayed.size(); ++i) {
    if (!eager[i].defined() || bytes_of(eager[i]) != replayed[i])
      throw differ(i < outputs.size() ? "output" : "gradient", i, replayed[i].size());
  }
  for (size_t i = 0; i < changes.size(); ++i) {
    const bool gradient = std::any_of(plan.leaves().begin(), plan.leaves().end(), [&](const Recording::Leaf& leaf) {
      return leaf.after.defined() && View(leaf.after).data == changes[i].data;  // eager code puts it elsewhere
    });
    if (!gradient && bytes_of(changes[i]) != after[i]) throw differ("state", i, after[i].size());
  }
  return outputs;
}

std::vector<Tensor> CompiledStep::operator()(const std::vector<Tensor>& inputs) {
  State& s = *state_;
  if (s.options.eager || recorder) return detached(s.step(inputs));  // recorder: part of a step that is recorded
  ++s.calls;
  if (s.why_eager.empty()) {
    try {
      Plan& plan = s.plan_for(inputs);
      if (s.options.poison) plan.poison();
      std::vector<Tensor> taken = inputs;
      for (Tensor& input : taken) {
        if (plan.makes(input)) input = input.detach().clone();  // the replay overwrites it
      }
      if (s.options.check_every > 0 && s.calls % s.options.check_every == 0) return s.check(plan, taken);
      plan.replay(taken);
      return detached(plan.outputs());
    } catch (const NotRecordable& e) {
      s.entries.clear();
      s.why_eager = e.what();
      warn(s.why_eager + "; it runs eagerly");
    }
  }
  return detached(s.step(inputs));
}

const std::string& CompiledStep::why_eager() const { return state_->why_eager; }

std::string CompiledStep::plan(const std::vector<std::pair<std::string, Tensor>>& names) const {
  return state_->entries.empty() ? "" : state_->entries.front().plan->text(names);
}

int64_t CompiledStep::memory() const {
  int64_t bytes = 0;
  for (const auto& entry : state_->entries) bytes += entry.plan->memory();
  return bytes;
}

}  // namespace tandem
