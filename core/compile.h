// A training step that is recorded once and then replayed: the same kernel calls on the same values, with no graph
// building, no allocation and no dispatch in between, fused and ordered for the caches, and on a GPU queued as one CUDA
// graph. Its results equal the eager step's byte for byte.
//
//   CompiledStep step([&](const std::vector<Tensor>& in) -> std::vector<Tensor> {
//     sgd.zero_grad();
//     const Tensor loss = cross_entropy(model(in[0]), in[1]);
//     loss.backward();
//     sgd.step();
//     return {loss};
//   });
//   for (const auto& [x, y] : loader) step({x, y});
//
// What the function does on the host happens while it is recorded, not in every replay. What changes from step to step
// must be in tensors and be changed in place: parameters, running statistics, the optimizer's learning rate and
// counters are. A function that reads a tensor's value (item(), data()) or makes a tensor from host values cannot be
// recorded: it runs eagerly, with one warning. Any other branch of the host is followed as it was when the step was
// recorded; that it still records alike is checked at steps 1, 2, 4, 8, ..., or at each (`check_recording`). A change
// of the inputs' shapes, of train() or eval(), of what is frozen or of gradients set from outside is noticed and
// recorded anew. All its tensors are on one device. Modules and tensors that the function refers to must stay where
// they are while the step lives. A step that replaces the handle of a tensor which it reads again (average = average *
// 0.5 + x) is refused, and that handle is lost: change it in place. Inputs that require a gradient make the step eager.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tandem/core/tensor.h"

namespace tandem {

struct CompileOptions {
  bool eager = false;  // call the function each time instead: the same values, slower
  // Leave each parameter's gradient in grad(), as the eager step does. Without, gradients share memory with other
  // temporaries and grad() is empty afterwards.
  bool keep_gradients = true;
  bool check_recording = false;  // record each step again and compare, for functions that are not known to repeat
  int64_t check_every = 0;  // > 0: every so many steps run the eager step too and compare all results, byte by byte
  // The plan's rewrites, one by one; see core/README.md. Results do not depend on them.
  bool fuse = true, order = true, block = true, recompute = true;
  bool graph = true;    // on a GPU, from the second replay on, one CUDA graph instead of a launch for each call
  bool poison = false;  // fill the temporaries with NaN before each replay, for tests
};

class CompiledStep {
 public:
  using Function = std::function<std::vector<Tensor>(const std::vector<Tensor>& inputs)>;
  explicit CompiledStep(Function step, CompileOptions options = {});
  ~CompiledStep();
  CompiledStep(CompiledStep&&) noexcept;
  CompiledStep& operator=(CompiledStep&&) noexcept;

  // What the function returns, detached. The next call overwrites these tensors. Throws what the function throws, while
  // it is recorded or (a label out of range) when its kernels run, and ValueError where a check finds a difference:
  // then the sentence says what and where.
  std::vector<Tensor> operator()(const std::vector<Tensor>& inputs);

  // Why steps run eagerly; empty if they do not.
  const std::string& why_eager() const;
  // The plan that the last call replayed, one call a line (empty when eager); `names` gives tensors that were there
  // before their names, such as a model's state_dict().
  std::string plan(const std::vector<std::pair<std::string, Tensor>>& names = {}) const;
  int64_t memory() const;  // bytes of all plans' temporaries

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// Host code in a step: f(value) now or, where the step is recorded, in each replay at this place. It may read `value`
// and throw, and changes no tensor. Device CPU only.
void on_host(const char* name, const View& value, std::function<void(const View&)> f);

// Something changed that a step's kernel calls depend on (a mode, a frozen layer): steps record anew. Layers call it.
void structure_changed();

}  // namespace tandem
