// Recording a step: while a Recorder lives in a thread, its kernel calls are noted instead of run, and new tensors get
// made-up addresses instead of memory. Internal; the public half is compile.h.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tandem/core/call.h"
#include "tandem/core/error.h"
#include "tandem/core/tensor.h"

namespace tandem {

// A step that cannot be recorded; the sentence says why. Such a step runs eagerly.
struct NotRecordable : Error {
  using Error::Error;
};

// Where a step's inputs are: calls may read parts of them.
class Places {
 public:
  struct Place {
    size_t input;
    int64_t offset;  // bytes
    std::string text() const;
  };
  Places() = default;
  explicit Places(const std::vector<Tensor>& inputs);
  // Of equal inputs the first; nothing if no input has that address.
  std::optional<Place> find(const void* address) const;
  size_t size() const { return ranges_.size(); }
  const void* begin(size_t input) const { return ranges_[input].first; }

 private:
  std::vector<std::pair<char*, int64_t>> ranges_;
};

// The calls of one run of a step, and what else it did.
struct Recording {
  // Whose gradient the step replaced, added to or dropped.
  struct Leaf {
    std::shared_ptr<Tensor::Impl> impl;
    Tensor before, after;
    bool reads_before;  // the gradient that was there, or that there was none, is part of the result
  };
  std::vector<std::unique_ptr<Call>> calls;
  std::vector<std::weak_ptr<Storage>> made;       // by address, ascending
  std::vector<std::shared_ptr<Storage>> changed;  // not made here, changed in place
  std::vector<std::shared_ptr<Storage>> outside;  // not made here, used; the inputs apart
  std::vector<Leaf> leaves;
  std::vector<Tensor> inputs, outputs;
  char* begin = nullptr;  // of the made-up addresses
  char* end = nullptr;

  bool made_here(const void* address) const { return address >= begin && address < end; }
  // Call by call and operand by operand, free of addresses but for those of tensors that were there before.
  std::string text() const;
};

class Recorder {
 public:
  Recorder();
  ~Recorder() { recorder = before_; }
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  void* allocate(size_t bytes);
  void made(const std::shared_ptr<Storage>& storage) { recording.made.push_back(storage); }
  void changed(const std::shared_ptr<Storage>& storage) { add(recording.changed, storage); }
  void used(const std::shared_ptr<Storage>& storage) { add(recording.outside, storage); }
  // Before the gradient of a leaf changes: to another handle, or (`reads`) by adding to what there is.
  void gradient(const std::shared_ptr<Tensor::Impl>& leaf, bool reads);

  // Puts every gradient back as it was before; nothing is recorded any more.
  Recording finish();

  const uint64_t id;
  Recording recording;
  std::string refusal;  // the first; it holds even if the step catches the exception

 private:
  void add(std::vector<std::shared_ptr<Storage>>& list, const std::shared_ptr<Storage>& storage) const;
  Recorder* before_;
};

// While one lives, calls run and tensors have memory although a step is being recorded: for state that is made
// once, at first use.
class Unrecorded {
 public:
  Unrecorded() : before_(recorder) { recorder = nullptr; }
  ~Unrecorded() { recorder = before_; }
  Unrecorded(const Unrecorded&) = delete;
  Unrecorded& operator=(const Unrecorded&) = delete;

 private:
  Recorder* before_;
};

// Runs `step` on `inputs` and notes what it does; no value changes, and gradients are put back. Throws NotRecordable,
// and what the step throws.
using StepFunction = std::function<std::vector<Tensor>(const std::vector<Tensor>& inputs)>;
Recording record_step(const StepFunction& step, const std::vector<Tensor>& inputs);

// Throws NotRecordable("compile: the step <what>; ...") if this thread records.
void refuse_to_record(const char* what);

// Throws ValueError for storage that was made while recording, unless that recording still goes on.
void check_has_memory(const Storage& storage);

}  // namespace tandem
