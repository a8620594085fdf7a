// The compiled step: equal to the eager one byte for byte, recorded anew when something changes, refused when it must
// be.
#include "tandem/core/compile.h"

#include <cstring>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/autograd.h"
#include "tandem/core/ops.h"
#include "tandem/core/random.h"
#include "tandem/core/threads.h"
#include "tandem/layers/activation.h"
#include "tandem/layers/batch_norm.h"
#include "tandem/layers/build.h"
#include "tandem/layers/dense.h"
#include "tandem/optim/optimizer.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Tensors = std::vector<Tensor>;

struct StepOptions {
  std::string optimizer = "sgd";
  double clip = 0, smoothing = 0;
  Dtype dtype = Dtype::float32;
};

// A model, its optimizer and its training step.
struct Trainer {
  Trainer(const std::string& layers, const Shape& input, StepOptions o = {})
      : options(o), model(build(layers, input, {.seed = 3, .dtype = o.dtype})) {
    const std::vector<Parameter> all = model->parameters();
    if (o.optimizer == "sgd")
      optimizer = std::make_unique<SGD>(all, SGDOptions{.lr = 0.05, .momentum = 0.9, .weight_decay = 1e-3});
    else if (o.optimizer == "nesterov")
      optimizer = std::make_unique<SGD>(all, SGDOptions{.lr = 0.05, .momentum = 0.9, .nesterov = true});
    else if (o.optimizer == "plain")
      optimizer = std::make_unique<SGD>(all, SGDOptions{.lr = 0.05});
    else if (o.optimizer == "adam")
      optimizer = std::make_unique<Adam>(all, AdamOptions{.lr = 0.01});
    else
      optimizer = std::make_unique<AdamW>(all, AdamWOptions{.lr = 0.01});
  }
  Tensors step(const Tensors& in) {
    optimizer->zero_grad();
    const Tensor logits = (*model)(in[0]);
    const Tensor loss = cross_entropy(logits, in[1], {.label_smoothing = options.smoothing});
    loss.backward();
    if (options.clip > 0) clip_grad_norm(model->parameters(), options.clip);
    optimizer->step();
    return {loss, logits};
  }
  CompiledStep compiled(CompileOptions o = {.keep_gradients = false}) {
    o.poison = true;
    return CompiledStep([this](const Tensors& in) { return step(in); }, o);
  }
  std::vector<uint8_t> state() const {
    std::vector<uint8_t> all;
    for (const Parameter& p : model->parameters()) {
      const auto part = bytes(p.tensor);
      all.insert(all.end(), part.begin(), part.end());
    }
    for (const Buffer& b : model->buffers()) {
      const auto part = bytes(b.tensor);
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  }
  StepOptions options;
  std::unique_ptr<Sequential> model;
  std::unique_ptr<Optimizer> optimizer;
};

Tensors batch(const Shape& input, int64_t n, uint64_t seed, Dtype dtype = Dtype::float32) {
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int32_t>((i * 7 + static_cast<int64_t>(seed)) % 10));
  return {random(input.insert(0, n), seed, dtype, 0, 1), Tensor::from(labels, {n})};
}

// Both ways, ten steps each, from the same weights on the same batches.
void check_equal(const std::string& layers, const Shape& input, int64_t n, const StepOptions& o = {},
                 CompileOptions c = {.keep_gradients = false}, int steps = 10) {
  INFO(layers << " on batches of " << n);
  Trainer eager(layers, input, o), replayed(layers, input, o);
  CompiledStep step = replayed.compiled(c);
  bool same_outputs = true;
  for (int i = 0; i < steps; ++i) {
    const Tensors in = batch(input, n, 100 + static_cast<uint64_t>(i), o.dtype);
    for (Trainer* t : {&eager, &replayed}) t->optimizer->set_lr(0.05 / (1 + i));
    const Tensors a = eager.step(in), b = step(in);
    for (size_t k = 0; k < a.size(); ++k) same_outputs = same_outputs && bytes(a[k]) == bytes(b[k]);
  }
  CHECK(step.why_eager() == "");
  CHECK(same_outputs);
  CHECK((eager.state() == replayed.state()));
  CHECK(eager.optimizer->steps() == replayed.optimizer->steps());
}

struct Threads {
  explicit Threads(int n) { set_threads(n); }
  ~Threads() { set_threads(before); }
  int before = threads();
};

const Shape kImage{28, 28, 1}, kSmall{8, 8, 3}, kRow{20};

// Every pair of rewrites that could meet.
const char* const kConvNets[] = {
    "conv:8:k=3:p=1,bn,relu,conv:16:k=3:s=2:p=1,bn,relu,dense:10",
    "conv:8:k=3:p=1,relu,conv:16:k=3:p=1,relu,dense:10",
    "conv:8:k=3,bn,sigmoid,conv:4:k=1,bn,tanh,dense:10",
    "conv:8:k=3:p=1,bn,relu,maxpool,conv:8:k=3,relu,avgpool,dense:10",
    "conv:6:k=3:p=1:bias=on,bn,relu,dropout:0.3,conv:6:k=3:p=1:g=2,bn,gap,dense:10",
    "bn,conv:8:k=5:p=2,bn:scale=off,relu,conv:8:k=3:d=2,bn:shift=off,relu,dense:16,bn,relu,dense:10",
    "conv:8:k=3,gn:4,relu,conv:8:k=3,ln,relu,dense:10",
    "conv:8:k=3:p=1,bn:track=off,relu,conv:8:k=3:p=1,bn:momentum=cumulative,relu,dense:10",
    "conv:8:k=3:p=1,bn:frozen,relu,conv:8:k=3:p=1,bn:keras,relu,dense:10",
    "conv:8:k=3:p=1,relu,bn,conv:8:k=3:p=1,relu,relu,dense:10",
};
const char* const kDenseNets[] = {
    "dense:16,bn,sigmoid,dense:16,bn,sigmoid,dense:10",
    "dense:16,sigmoid,dense:16,tanh,dense:10",
    "dense:33,bn,relu,dense:7,bn,relu,dense:10",
    "dense:16,bn,dense:16,relu,bn,dropout:0.5,dense:10",
    "dense:10",
};

}  // namespace

TEST_CASE("The reference networks' compiled steps equal the eager ones byte for byte", "[compile]") {
  for (const char* name : {"w1", "w2", "w3"}) {
    for (bool bn : {true, false})
      check_equal(model_text(name, bn).layers, kImage, name[1] == '3' ? 7 : 60, {}, {.keep_gradients = false}, 6);
  }
}

TEST_CASE("Compiled steps equal eager ones for every kind of layer, with each rewrite switched on by itself",
          "[compile]") {
  const CompileOptions ways[] = {
      {.keep_gradients = false, .fuse = false, .order = false, .block = false},
      {.keep_gradients = false, .fuse = true, .order = false, .block = false},
      {.keep_gradients = false, .fuse = false, .order = false, .block = true, .recompute = false},
      {.keep_gradients = false, .fuse = false, .order = true, .block = true, .recompute = false},
      {.keep_gradients = false, .fuse = false, .order = true, .block = true, .recompute = true},
      {.keep_gradients = true},
      {.keep_gradients = false},
  };
  for (const CompileOptions& way : ways) {
    for (const char* net : kConvNets) check_equal(net, kSmall, 21, {}, way, 4);
    for (const char* net : kDenseNets) check_equal(net, kRow, 32, {}, way, 4);
  }
}

TEST_CASE("Compiled steps equal eager ones with every optimizer, clipping, smoothing and dtype", "[compile]") {
  for (const char* optimizer : {"sgd", "nesterov", "plain", "adam", "adamw"})
    check_equal(kConvNets[0], kSmall, 9, {.optimizer = optimizer}, {.keep_gradients = false}, 5);
  check_equal(kConvNets[0], kSmall, 9, {.clip = 0.5});
  check_equal(kConvNets[0], kSmall, 9, {.smoothing = 0.1});
  check_equal(kConvNets[0], kSmall, 9, {.dtype = Dtype::float64});
  check_equal(kDenseNets[0], kRow, 300, {.dtype = Dtype::float64});
}

TEST_CASE("Compiled steps give the same bytes on 1, 2, 3 and 4 threads", "[compile][determinism]") {
  Trainer eager(kConvNets[0], kSmall);
  for (uint64_t i = 0; i < 4; ++i) eager.step(batch(kSmall, 37, i));
  for (int n : {1, 2, 3, 4}) {
    const Threads several(n);
    Trainer replayed(kConvNets[0], kSmall);
    CompiledStep step = replayed.compiled();
    for (uint64_t i = 0; i < 4; ++i) step(batch(kSmall, 37, i));
    INFO(n << " threads");
    CHECK((replayed.state() == eager.state()));
  }
}

TEST_CASE("A compiled step follows batch tails, modes and freezing", "[compile]") {
  Trainer eager(kConvNets[0], kSmall), replayed(kConvNets[0], kSmall);
  CompiledStep step = replayed.compiled();
  for (int i = 0; i < 24; ++i) {
    for (Trainer* t : {&eager, &replayed}) {
      if (i == 6) t->model->parameters()[0].tensor.set_requires_grad(false);
      if (i == 9) t->model->eval();
      if (i == 12) t->model->train();
      if (i == 15) dynamic_cast<BatchNorm&>(*t->model->children()[1].second).freeze();
      if (i == 18) t->model->parameters()[0].tensor.set_requires_grad(true);
    }
    const Tensors in = batch(kSmall, i % 3 == 2 ? 5 : 8, static_cast<uint64_t>(i));
    const Tensors a = eager.step(in), b = step(in);
    INFO("step " << i);
    CHECK((bytes(a[0]) == bytes(b[0])));
    CHECK((eager.state() == replayed.state()));
  }
  CHECK(step.why_eager() == "");
}

TEST_CASE("Compiled steps take batches with and without the hint of zeros", "[compile]") {
  const char* layers = "flatten,dense:33,bn,relu,dense:10";
  Trainer eager(layers, {9, 7, 1}), replayed(layers, {9, 7, 1});
  CompiledStep step = replayed.compiled();
  for (int i = 0; i < 9; ++i) {
    Tensors in = batch({9, 7, 1}, 20, 100 + static_cast<uint64_t>(i));
    in[0] = relu(in[0] - full({}, 0.7));
    eager.step(in);
    in[0].set_mostly_zero(i % 3 != 0);
    step(in);
  }
  CHECK(step.why_eager().empty());
  CHECK(eager.state() == replayed.state());
}

TEST_CASE("Weights that are loaded or replaced between compiled steps are used", "[compile]") {
  Trainer eager(kDenseNets[0], kRow), replayed(kDenseNets[0], kRow),
      other("dense:16,bn,sigmoid,dense:16,bn,sigmoid,dense:10", kRow);
  other.step(batch(kRow, 8, 99));
  CompiledStep step = replayed.compiled();
  for (int i = 0; i < 6; ++i) {
    for (Trainer* t : {&eager, &replayed}) {
      if (i == 2) t->model->load_state_dict(other.model->state_dict());
      if (i == 4) t->model->parameters()[0].tensor.set_data(full({16, 20}, 0.01));
    }
    const Tensors in = batch(kRow, 8, static_cast<uint64_t>(i));
    eager.step(in);
    step(in);
    INFO("step " << i);
    CHECK((eager.state() == replayed.state()));
  }
}

TEST_CASE("Gradients accumulate over compiled steps and are there to read", "[compile]") {
  Trainer eager(kDenseNets[0], kRow), replayed(kDenseNets[0], kRow);
  const auto accumulate = [](Trainer& t, const Tensors& in) -> Tensors {
    const Tensor loss = cross_entropy((*t.model)(in[0]), in[1]);
    loss.backward();
    return {loss};
  };
  CompiledStep backward([&](const Tensors& in) { return accumulate(replayed, in); });
  for (int i = 0; i < 12; ++i) {
    const Tensors in = batch(kRow, 8, static_cast<uint64_t>(i));
    accumulate(eager, in);
    backward(in);
    const Tensor a = eager.model->parameters()[0].tensor.grad(), b = replayed.model->parameters()[0].tensor.grad();
    INFO("step " << i);
    CHECK((bytes(a) == bytes(b)));
    if (i % 3 != 2) continue;
    for (Trainer* t : {&eager, &replayed}) {
      t->optimizer->step();
      t->optimizer->zero_grad();
    }
    CHECK((eager.state() == replayed.state()));
  }
  CHECK(backward.why_eager() == "");
}

TEST_CASE("Stopped and resumed, and eager then compiled, training gives the same bytes", "[compile]") {
  const auto run = [](int eager_steps, int recorded_anew) {
    Trainer t(kConvNets[0], kSmall);
    for (int i = 0; i < eager_steps; ++i) t.step(batch(kSmall, 8, static_cast<uint64_t>(i)));
    std::optional<CompiledStep> step;
    for (int i = eager_steps; i < 9; ++i) {
      if (!step || i == recorded_anew) step = t.compiled();
      (*step)(batch(kSmall, 8, static_cast<uint64_t>(i)));
    }
    return t.state();
  };
  const auto unbroken = run(0, -1);
  CHECK((run(0, 4) == unbroken));
  CHECK((run(5, -1) == unbroken));
  CHECK((run(9, -1) == unbroken));
}

TEST_CASE("One layer used three times compiles to the same bytes", "[compile]") {
  const auto three = [](Trainer& t, const Tensors& in) -> Tensors {
    auto& shared = *t.model->children()[0].second;
    t.optimizer->zero_grad();
    Tensor h = in[0];
    for (int i = 0; i < 3; ++i) h = relu(shared(h)) + h;
    const Tensor loss = cross_entropy(h, in[1]);
    loss.backward();
    t.optimizer->step();
    return {loss};
  };
  Trainer eager("dense:20", kRow), replayed("dense:20", kRow);
  CompiledStep step([&](const Tensors& in) { return three(replayed, in); });
  for (uint64_t i = 0; i < 6; ++i) {
    three(eager, batch(kRow, 8, i));
    step(batch(kRow, 8, i));
  }
  CHECK((eager.state() == replayed.state()));
}

TEST_CASE("A step that reads a value runs eagerly, with one warning", "[compile]") {
  const Warnings warnings;
  Trainer eager(kDenseNets[0], kRow), other(kDenseNets[0], kRow);
  CompiledStep step([&](const Tensors& in) {
    const Tensors out = other.step(in);
    if (out[0].item() < 0) throw ValueError("a loss cannot be negative");
    return out;
  });
  for (uint64_t i = 0; i < 3; ++i) {
    eager.step(batch(kRow, 8, i));
    step(batch(kRow, 8, i));
  }
  CHECK((eager.state() == other.state()));
  CHECK(step.why_eager() == "compile: the step reads or writes a tensor's values on the host");
  CHECK(warnings.seen == std::vector<std::string>{step.why_eager() + "; it runs eagerly"});
}

TEST_CASE("Host code that changes from step to step is found out", "[compile]") {
  const Tensor x = ones({4});
  {
    const Warnings warnings;
    double scale = 1;
    CompiledStep drifting([&](const Tensors& in) -> Tensors { return {affine(in[0], scale *= 0.5, 0)}; });
    CHECK(drifting({x})[0].to_vector<float>()[0] == 0.125f);  // two recordings before
    CHECK(drifting.why_eager() ==
          "compile: two recordings of the step differ: call 0 was \"Affine x=input0 float32[4] "
          "y=t1 float32[4] scale=0.5 shift=0\" and is \"Affine x=input0 float32[4] y=t1 "
          "float32[4] scale=0.25 shift=0\"");
  }
  int calls = 0;
  const auto late = [&](const Tensors& in) -> Tensors { return {++calls > 5 ? relu(in[0]) : neg(in[0])}; };
  CompiledStep sampled(late);
  CHECK(error_of([&] {
          for (int i = 0; i < 100; ++i) sampled({x});
        }) ==
        "compile: the step is no longer what was recorded: call 0 was \"Affine x=input0 float32[4] y=t1 float32[4] "
        "scale=-1 shift=0\" and is \"Unary x=input0 float32[4] y=t1 float32[4] op=4\"; what changes between steps "
        "must be in a tensor, or run the step eagerly");
  calls = 0;
  CompiledStep each(late, {.check_recording = true});
  int done = 0;
  error_of([&] {
    for (; done < 100; ++done) each({x});
  });
  CHECK(done == 4);
}

TEST_CASE("A step that keeps a tensor beyond its end runs eagerly, and one that replaces what it reads is refused",
          "[compile]") {
  const Warnings warnings;
  Tensor average = zeros({4}), kept;
  CompiledStep replaces([&](const Tensors& in) -> Tensors { return {average = average * 0.5 + in[0]}; });
  CompiledStep keeps([&](const Tensors& in) -> Tensors {
    kept = in[0] * 2;
    return {kept * 2};
  });
  for (int i = 0; i < 3; ++i) {
    CHECK(keeps({ones({4})})[0].to_vector<float>()[0] == 4);
  }
  CHECK(kept.to_vector<float>()[0] == 2);
  CHECK(keeps.why_eager().find("keeps a tensor") != std::string::npos);
  CHECK(warnings.seen.size() == 1);
  // Whose own value it is lost.
  CHECK(error_of([&] { replaces({ones({4})}); }) ==
        "tensor: it was made while a step was recorded and has no values; "
        "have the step return it instead of keeping it");
  CHECK(replaces.why_eager().find("in place") != std::string::npos);
}

TEST_CASE("Checks of values happen in each replay", "[compile]") {
  Trainer t(kDenseNets[0], kRow);
  CompiledStep step = t.compiled();
  Tensors in = batch(kRow, 8, 1);
  step(in);
  in[1] = full({8}, 10, {Dtype::int32});
  CHECK(error_of([&] { step(in); }) == "cross_entropy: expected labels in [0, 10), got 10");
  CHECK(error_of([&] { step({in[0].reshape({4, 40}), in[1]}); }).find("expected x[N, 20]") != std::string::npos);
  in = batch(kRow, 8, 1);
  CHECK(std::isfinite(step(in)[0].item()));
}

TEST_CASE("A compiled step compared with the eager one every few steps goes on as if it were not", "[compile]") {
  Trainer checked(kConvNets[0], kSmall), plain(kConvNets[0], kSmall);
  CompiledStep a = checked.compiled({.keep_gradients = false, .check_every = 2}), b = plain.compiled();
  for (uint64_t i = 0; i < 7; ++i) {
    const Tensors in = batch(kSmall, 8, i), x = a(in), y = b(in);
    CHECK((bytes(x[0]) == bytes(y[0])));
  }
  CHECK((checked.state() == plain.state()));
}

TEST_CASE("Replays allocate nothing", "[compile]") {
  Trainer t(kConvNets[0], kSmall);
  CompiledStep step = t.compiled();
  const Tensors in = batch(kSmall, 8, 1);
  for (int i = 0; i < 9; ++i) step(in);
  const MemoryStats before = memory_stats();
  for (int i = 0; i < 6; ++i) step(in);  // up to the next check of the recording
  CHECK(memory_stats().bytes_in_use == before.bytes_in_use);
  CHECK(memory_stats().system_allocations == before.system_allocations);
}
