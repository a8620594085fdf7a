#include "tandem/core/autograd.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>

#include "tandem/core/dispatch.h"
#include "tandem/core/error.h"
#include "tandem/core/ops.h"
#include "tandem/core/recorder.h"
#include "tandem/core/tensor_impl.h"

namespace tandem {
namespace {

thread_local bool recording = true;
thread_local const char* running_vjp = nullptr;
std::atomic<uint64_t> next_sequence{0};

// sum + g; in place when nobody else can see the elements of sum.
Tensor accumulate(Tensor sum, const Tensor& g) {
  if (!TensorAccess::unique(sum)) return add(sum, g);
  launch(AddTo{g, sum});
  return sum;
}

void check_gradients(const Node& node, const Grads& grads) {
  if (grads.size() != node.inputs.size())
    throw ValueError(
        fmt::format("backward of \"{}\": expected {} gradients, got {}", node.name, node.inputs.size(), grads.size()));
  for (size_t i = 0; i < grads.size(); ++i) {
    const Node::Edge& edge = node.inputs[i];
    if (grads[i].defined() && (grads[i].shape() != edge.shape || grads[i].dtype() != edge.dtype))
      throw ShapeError(fmt::format("backward of \"{}\": expected gradient {} of input {} {}, got {} {}", node.name, i,
                                   to_string(edge.shape), name_of(edge.dtype), to_string(grads[i].shape()),
                                   name_of(grads[i].dtype())));
    if (grads[i].defined() && !(grads[i].device() == edge.device))
      throw DeviceError(fmt::format("backward of \"{}\": expected gradient {} of input on {}, got one on {}", node.name,
                                    i, to_string(edge.device), to_string(grads[i].device())));
  }
}

Grads run_vjp(Node& node) {
  if (node.freed)
    throw ValueError(
        fmt::format("backward of \"{}\": an earlier backward freed this graph; run forward again, or "
                    "keep it with backward({{}}, /*retain_graph=*/true)",
                    node.name));
  struct Running {
    explicit Running(const char* name) { running_vjp = name; }
    ~Running() { running_vjp = nullptr; }
  } running(node.name);
  Grads grads = node.vjp(node.grad);
  check_gradients(node, grads);
  return grads;
}

// The nodes still to visit, the latest first. Whatever happens, it leaves no gradient behind in a node.
class Pending {
 public:
  ~Pending() {
    for (auto& node : heap_) node->grad = {};
  }
  bool empty() const { return heap_.empty(); }
  void add(const std::shared_ptr<Node>& node, Tensor grad) {
    if (node->grad.defined()) {
      node->grad = accumulate(std::move(node->grad), grad);
      return;
    }
    node->grad = std::move(grad);
    heap_.push_back(node);
    std::push_heap(heap_.begin(), heap_.end(), earlier);
  }
  const std::shared_ptr<Node>& latest() const { return heap_.front(); }
  std::shared_ptr<Node> take() {
    std::pop_heap(heap_.begin(), heap_.end(), earlier);
    auto node = std::move(heap_.back());
    heap_.pop_back();
    node->grad = {};
    return node;
  }

 private:
  static bool earlier(const std::shared_ptr<Node>& a, const std::shared_ptr<Node>& b) {
    return a->sequence < b->sequence;
  }
  std::vector<std::shared_ptr<Node>> heap_;
};

// The gradients found for leaves. No leaf's grad changes before commit(), when no vjp can fail any more, and then
// all of them do or, where memory runs out, none.
class LeafGrads {
 public:
  ~LeafGrads() {
    for (auto& leaf : leaves_) leaf->arriving = {};
  }
  void add(const std::shared_ptr<Tensor::Impl>& leaf, Tensor g) {
    if (g.dtype() != leaf->dtype || g.device() != leaf->storage->device)
      throw ValueError(fmt::format("backward: the parameter {} changed to {} on {} since forward; run forward again",
                                   to_string(leaf->shape), name_of(leaf->dtype), to_string(leaf->storage->device)));
    if (leaf->arriving.defined()) {
      leaf->arriving = accumulate(std::move(leaf->arriving), g);
    } else {
      leaves_.push_back(leaf);
      leaf->arriving = std::move(g);
    }
  }
  void commit() {
    for (auto& leaf : leaves_) {
      if (recorder) recorder->gradient(leaf, true);
      if (adds_in_place(*leaf)) continue;
      Tensor& sum = leaf->arriving;
      if (leaf->grad.defined())
        sum = accumulate(std::move(sum), leaf->grad);
      else if (!TensorAccess::unique(sum))
        sum = sum.clone();
    }
    for (auto& leaf : leaves_) {
      if (adds_in_place(*leaf)) {
        launch(AddTo{leaf->arriving, leaf->grad});
        leaf->grad.bump_version();
      } else {
        leaf->grad = std::move(leaf->arriving);
      }
    }
  }

 private:
  // In a step that is recorded a gradient that was there stays where it is: its replays know that place alone.
  static bool adds_in_place(const Tensor::Impl& leaf) { return recorder && leaf.grad.defined(); }
  std::vector<std::shared_ptr<Tensor::Impl>> leaves_;
};

}  // namespace

// Freeing a long chain must not recurse: the outermost destructor frees what the inner ones hand it.
Node::~Node() {
  using Remains = std::pair<std::vector<Edge>, Vjp>;  // both may own nodes
  thread_local std::vector<Remains>* draining = nullptr;
  if (inputs.empty() && !vjp) return;
  if (draining) {
    draining->emplace_back(std::move(inputs), std::move(vjp));
    return;
  }
  std::vector<Remains> queue;
  draining = &queue;
  queue.emplace_back(std::move(inputs), std::move(vjp));
  while (!queue.empty()) {
    const Remains last = std::move(queue.back());
    queue.pop_back();
  }
  draining = nullptr;
}

NoGrad::NoGrad() : before_(recording) { recording = false; }
NoGrad::~NoGrad() { recording = before_; }
bool grad_enabled() { return recording; }

const Tensor& Saved::checked() const {
  if (tensor_.defined() && tensor_.version() != version_)
    throw ValueError(
        fmt::format("backward of \"{}\": it needs the value of a tensor {} that was changed in place "
                    "since (version {}, saved at {}); change a clone() instead",
                    running_vjp ? running_vjp : "?", to_string(tensor_.shape()), tensor_.version(), version_));
  return tensor_;
}

bool needs_record(const Tensor* inputs, size_t count) {
  return recording &&
         std::any_of(inputs, inputs + count, [](const Tensor& t) { return t.defined() && t.requires_grad(); });
}

Tensor record_node(const char* name, Tensor y, const Tensor* inputs, size_t count, Vjp vjp) {
  auto node = std::make_shared<Node>();
  node->name = name;
  node->sequence = next_sequence++;
  node->vjp = std::move(vjp);
  node->inputs.reserve(count);
  for (size_t i = 0; i < count; ++i) {
    const auto& input = TensorAccess::impl(inputs[i]);
    Node::Edge edge{};
    if (input) {
      if (input == TensorAccess::impl(y))
        throw ValueError(fmt::format("record \"{}\": the result must be a new tensor, not input {}", name, i));
      edge = {input->node, !input->node && input->requires_grad ? input : nullptr, input->shape, input->dtype,
              input->storage->device};
    }
    node->inputs.push_back(std::move(edge));
  }
  const auto& impl = TensorAccess::impl(y);
  impl->node = std::move(node);
  impl->requires_grad = true;
  return y;
}

void Tensor::backward(const Tensor& grad, bool retain_graph) const {
  if (!requires_grad()) throw ValueError("backward: this tensor does not depend on any tensor with requires_grad");
  if (!grad.defined() && numel() != 1)
    throw ValueError(
        fmt::format("backward: expected a single element or a gradient, got {} without one", to_string(shape())));
  if (grad.defined() && (grad.shape() != shape() || grad.dtype() != dtype()))
    throw ShapeError(fmt::format("backward: expected a gradient {} {}, got {} {}", to_string(shape()), name_of(dtype()),
                                 to_string(grad.shape()), name_of(grad.dtype())));
  if (grad.defined() && !(grad.device() == device()))
    throw DeviceError(fmt::format("backward: expected a gradient on {}, got one on {}; move it with to()",
                                  to_string(device()), to_string(grad.device())));
  NoGrad no_grad;
  const Tensor seed = grad.defined() ? grad : ones(shape(), {dtype(), device()});
  LeafGrads leaves;
  if (is_leaf()) {
    leaves.add(impl_, seed);
    return leaves.commit();
  }
  Pending pending;
  pending.add(impl_->node, seed);
  while (!pending.empty()) {
    Grads grads = run_vjp(*pending.latest());
    const std::shared_ptr<Node> node = pending.take();
    for (size_t i = 0; i < grads.size(); ++i) {
      const Node::Edge& edge = node->inputs[i];
      if (!grads[i].defined()) continue;
      if (edge.node)
        pending.add(edge.node, std::move(grads[i]));
      else if (edge.leaf)
        leaves.add(edge.leaf, std::move(grads[i]));
    }
    if (!retain_graph) {
      node->freed = true;
      node->vjp = nullptr;
      node->inputs.clear();
    }
  }
  leaves.commit();
}

}  // namespace tandem
