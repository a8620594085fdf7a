// The plan of a compiled step: a recording's calls, rewritten, given places in one arena, and replayed. Internal; the
// public half is compile.h. core/README.md explains it on an example.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tandem/core/compile.h"
#include "tandem/core/cuda.h"
#include "tandem/core/recorder.h"

namespace tandem {

// The calls while they are rewritten, and what the rewrites need to know of their operands.
struct Program {
  std::vector<std::unique_ptr<Call>> calls;
  char *begin, *end;              // made-up addresses: of what the step itself made
  std::set<const void*> escaped;  // of those, what outlives the step

  bool temporary(const void* address) const { return address >= begin && address < end && escaped.count(address) == 0; }
  // A temporary of its own, in the dtype and on the device of `like`.
  View make(const Shape& shape, const View& like) {
    const View made{end, shape, like.dtype, like.device};
    end += (shape.numel() * size_of(like.dtype) + 63) / 64 * 64;
    return made;
  }
};

// Neighbouring calls become one where a kernel does both in one pass: batch norm and activation, their gradients, and
// either in the convolution that reads the result. The 1 with which a loss's gradient begins needs no call.
void fuse(Program& program);
// On a GPU, where a launch costs what a small call does: the loss and its gradient become one.
void fuse_loss(Program& program);
// Convolutions take their weights packed once for all chunks.
void pack(Program& program);
// Calls on whole batches that stand between row-wise ones move to the nearest place behind or before those.
void order(Program& program);

// How the rows of a call's batch may be taken apart: chunks.chunks() is 1 where they may not.
Chunking row_chunks(const Call& call);
// Neighbours of one number run chunk by chunk: the rows of a few images go through all of them while they are in the
// cache. Calls on whole batches have numbers of their own. Numbers ascend.
std::vector<int> groups(const Program& program, bool block);

// A cheap convolution (of an image of few channels) runs again in each group that reads its result, which then never
// leaves the cache.
void recompute(Program& program);

class Plan {
 public:
  // A temporary. One that lives within one group, row by row, is scratch: it holds a chunk per thread.
  struct Buffer {
    int64_t bytes = 0, offset = 0;
    int first = 0, last = 0;  // the groups that use it
    bool scratch = false;
    int64_t row_bytes = 0, chunk_rows = 0;
  };

  // Throws NotRecordable if the step keeps a tensor that it made. `threads`: how many lanes run at once.
  Plan(Recording recording, const CompileOptions& options, int threads);
  void replay(const std::vector<Tensor>& inputs);

  const std::vector<Tensor>& outputs() const { return outputs_; }
  const std::vector<Recording::Leaf>& leaves() const { return leaves_; }
  // Its elements are an output or a gradient of this plan.
  bool makes(const Tensor& tensor) const;
  bool same_recording(const Recording& other) const { return text_ == other.text(); }
  const std::string& recorded_text() const { return text_; }
  // The gradients that the recording found are those there are now.
  bool gradients_fit() const;
  // What was there before and is written.
  std::vector<View> changes() const;
  std::string text(const std::vector<std::pair<std::string, Tensor>>& names) const;
  int64_t memory() const { return arena_ ? static_cast<int64_t>(arena_->bytes) : 0; }
  void poison();  // fills the arena with NaN

  const Program& program() const { return program_; }
  const std::vector<int>& group_of_call() const { return group_; }
  const std::map<const void*, Buffer>& buffers() const { return buffers_; }

 private:
  struct Group {
    std::vector<std::vector<std::unique_ptr<Call>>> slots;  // run at once
  };
  struct Site {
    View* view;
    int64_t offset;
  };
  void find_device(const Recording& recording);
  void keep_what_escapes(Recording& recording, bool keep_gradients);
  void take_inputs(const std::vector<Tensor>& inputs);
  void run_calls() const;
  void place(int threads);
  void expand(int threads);
  void resolve(Call& call, int64_t chunk, int64_t lane, int64_t slot, const Chunking& cut);
  std::string name_of_buffer(const void* address, const std::vector<std::pair<std::string, Tensor>>& names) const;

  std::string text_;  // of the recording
  Device device_;     // of all operands
  bool wants_graph_;
  std::vector<Recording::Leaf> leaves_;
  std::vector<std::shared_ptr<Storage>> changed_;
  std::vector<std::shared_ptr<Storage>> outside_;  // what was there before lives as long as its address is used
  std::vector<Tensor> outputs_;
  std::map<const void*, std::shared_ptr<Storage>> escaped_;  // by made-up address
  Places inputs_;                                            // when it was recorded
  Program program_;
  std::vector<int> group_;
  std::map<const void*, Buffer> buffers_;
  std::unique_ptr<Storage> arena_;
  std::vector<Group> groups_;
  std::vector<std::vector<Site>> sites_;  // of each input
  std::vector<const void*> bound_;        // where the inputs were in the last replay
  // On a GPU a graph cannot follow an input that moves: from then on it is copied to where the graph reads it.
  std::vector<std::unique_ptr<Storage>> taken_inputs_;
  bool warm_ = false;  // has run once: modules are loaded, scratch memory is there
  std::unique_ptr<cuda::Graph> graph_;
};

}  // namespace tandem
