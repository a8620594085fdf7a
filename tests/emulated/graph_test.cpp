// Compiled steps on a device: a CUDA graph's replays equal single launches and the eager step, byte for byte.
#include <memory>
#include <thread>

#include "../catch.hpp"
#include "../helpers.h"
#include "../training.h"
#include "cases.h"
#include "tandem/core/autograd.h"
#include "tandem/core/compile.h"
#include "tandem/core/cuda.h"
#include "tandem/core/ops.h"
#include "tandem/layers/build.h"
#include "tandem/optim/optimizer.h"
#include "tandem/optim/step_log.h"

using namespace tandem;
using namespace tandem::test;

namespace {

using Tensors = std::vector<Tensor>;
const Device kGpu = Device::cuda();
const Shape kImage{7, 6, 2};

struct Net {
  std::string layers;
  bool adam = false;
  Dtype dtype = Dtype::float32;
};
const Net kNets[] = {
    {"dense:16,bn,relu,dense:10"},
    {"dense:16,bn,sigmoid,dropout:0.4,dense:10", true},
    {"conv:4:k=3:p=1,bn,relu,maxpool,conv:6:k=3,bn,tanh,dense:10"},
    {"conv:4:k=3,relu,bn,gap,dense:10", true, Dtype::float64},
    {"bn,conv:6:k=3:g=2:bias=on,gn:3,relu,avgpool,dense:10"},
};

// A model and its step on the GPU; where the loss goes is another tensor than the step's result.
struct Trainer {
  Trainer(const Net& net, CompileOptions options)
      : model(build(net.layers, kImage, {.seed = 3, .dtype = net.dtype})), log(64, kGpu) {
    model->to(kGpu);
    if (net.adam)
      optimizer = std::make_unique<Adam>(model->parameters(), AdamOptions{.lr = 0.01});
    else
      optimizer = std::make_unique<SGD>(model->parameters(), SGDOptions{.lr = 0.05, .momentum = 0.9});
    options.poison = !options.eager;
    options.keep_gradients = false;
    step = std::make_unique<CompiledStep>([this](const Tensors& in) { return run(in); }, options);
  }
  Tensors run(const Tensors& in) {
    optimizer->zero_grad();
    const Tensor logits = (*model)(in[0]), loss = cross_entropy(logits, in[1]);
    loss.backward();
    clip_grad_norm(model->parameters(), 2);
    optimizer->step();
    log.note(loss, logits, in[1]);
    return {loss};
  }

  std::unique_ptr<Sequential> model;
  std::unique_ptr<Optimizer> optimizer;
  StepLog log;
  std::unique_ptr<CompiledStep> step;
};

Tensors batch(int64_t n, uint64_t seed, Dtype dtype = Dtype::float32) {
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int32_t>((i * 7 + static_cast<int64_t>(seed)) % 10));
  return {random(kImage.insert(0, n), seed, dtype, 0, 1).to(kGpu), Tensor::from(labels, {n}, kGpu)};
}

// Everything ten steps leave behind, with another lr in each, a tail of three rows in some, and inputs that either keep
// their address, as a loader's do, or are other tensors each time.
Bytes after_ten_steps(const Net& net, const CompileOptions& options, bool moving = false) {
  Trainer t(net, options);
  Tensors fixed;
  std::vector<Tensors> alive;  // so that the next ones are elsewhere
  Bytes all;
  for (uint64_t i = 0; i < 10; ++i) {
    Tensors in = batch(i % 4 == 3 ? 3 : 8, i, net.dtype);
    if (!moving && i % 4 != 3) {
      if (fixed.empty()) fixed = in;
      for (size_t k = 0; k < in.size(); ++k) fixed[k].copy_from(in[k]);
      in = fixed;
    }
    alive.push_back(in);
    t.optimizer->set_lr(0.05 / static_cast<double>(1 + i));
    all.push_back(bytes((*t.step)(in)[0]));
  }
  const std::string& why = t.step->why_eager();  // in threads that Catch must not hear of
  all.emplace_back(why.begin(), why.end());
  all.push_back(state_bytes(*t.model));
  for (const StepLog::Record& record : t.log.take()) all.back().push_back(static_cast<uint8_t>(record.correct));
  return all;
}

}  // namespace

TEST_CASE("Replayed as a CUDA graph, launch by launch and eagerly, a step gives the same bytes", "[emulator]") {
  for (const Net& net : kNets) {
    INFO(net.layers);
    const Bytes eager = after_ten_steps(net, {.eager = true});
    CHECK((after_ten_steps(net, {.graph = false}) == eager));
    for (bool moving : {false, true}) CHECK((after_ten_steps(net, {}, moving) == eager));
    const Seed seed(2);
    CHECK((after_ten_steps(net, {.fuse = false}) == eager));
  }
}

TEST_CASE("A graph's replay makes few calls to the driver, and reads the learning rate anew", "[emulator]") {
  Trainer t(kNets[0], {}), still(kNets[0], {}), launched(kNets[0], {.graph = false});
  const Tensors in = batch(8, 1);
  for (int i = 0; i < 5; ++i) {
    for (Trainer* each : {&t, &still, &launched}) (*each->step)(in);
  }
  still.optimizer->set_lr(0);  // weights still move by momentum
  {
    const Fault after_a_few(8);
    CHECK_NOTHROW((*t.step)(in));
    CHECK_THROWS_AS((*launched.step)(in), DeviceError);
  }
  (*still.step)(in);
  CHECK(state_bytes(*t.model) != state_bytes(*still.model));
}

TEST_CASE("Two threads that train at once on one GPU get what each gets alone", "[emulator]") {
  const Bytes alone[] = {after_ten_steps(kNets[0], {}), after_ten_steps(kNets[2], {})};
  Bytes together[2];
  std::thread other([&] { together[1] = after_ten_steps(kNets[2], {}); });
  together[0] = after_ten_steps(kNets[0], {});
  other.join();
  for (int i : {0, 1}) CHECK((together[i] == alone[i]));
}

TEST_CASE("A step may move to another thread, whose stream records it anew", "[emulator]") {
  Trainer moved(kNets[2], {}), eager(kNets[2], {.eager = true});
  const auto some_steps = [](Trainer& t, uint64_t first) {
    for (uint64_t i = first; i < first + 4; ++i) (*t.step)(batch(8, i));
    cuda::synchronize(kGpu);
  };
  some_steps(moved, 0);
  std::thread([&] { some_steps(moved, 4); }).join();
  some_steps(moved, 8);
  for (uint64_t first : {0u, 4u, 8u}) some_steps(eager, first);
  CHECK((state_bytes(*moved.model) == state_bytes(*eager.model)));
}

TEST_CASE("A label out of range in a graph is an error at the next wait, and others train on", "[emulator]") {
  Trainer t(kNets[0], {}), other(kNets[0], {});
  for (uint64_t i = 0; i < 4; ++i) (*t.step)(batch(8, i));
  Tensors wrong = batch(8, 4);
  wrong[1] = Tensor::from(std::vector<int32_t>{1, 2, 3, 10, 5, -6, 7, 8}, {8}, kGpu);
  CHECK_NOTHROW((*t.step)(wrong));
  CHECK_THROWS_WITH(cuda::synchronize(kGpu), "cross_entropy: expected labels in [0, 10), got 10");
  CHECK_NOTHROW((*t.step)(batch(8, 5)));
  CHECK_NOTHROW(cuda::synchronize(kGpu));
  Bytes losses;
  for (uint64_t i = 0; i < 4; ++i) losses.push_back(bytes((*other.step)(batch(8, i))[0]));
  Trainer eager(kNets[0], {.eager = true});
  for (uint64_t i = 0; i < 4; ++i) CHECK((bytes((*eager.step)(batch(8, i))[0]) == losses[i]));
}

TEST_CASE("Whatever call fails while a step is recorded, captured and replayed, others train on", "[emulator]") {
  const Bytes right = after_ten_steps(kNets[0], {});
  // The calls before one that fails; none fails beyond the last. Returns the type of what was thrown.
  const auto attempt = [](int calls, cudaError_t error) -> std::string {
    const Fault fault(calls, error);
    try {
      Trainer t(kNets[0], {});
      for (uint64_t i = 0; i < 6; ++i) (*t.step)(batch(8, i));
      cuda::synchronize(kGpu);
    } catch (const OutOfMemory&) {
      return "OutOfMemory";
    } catch (const DeviceError&) {
      return "DeviceError";
    }
    return "";
  };
  int all_calls = 0;
  for (std::string thrown = "DeviceError"; thrown != ""; all_calls += 1 + all_calls / 10) {
    thrown = attempt(all_calls, cudaErrorLaunchFailure);
    REQUIRE((thrown == "DeviceError" || (thrown == "" && all_calls > 100)));
  }
  CHECK((after_ten_steps(kNets[0], {}) == right));
  int failed = 0;
  for (int calls = 0; calls < all_calls; calls += 1 + calls / 10) {
    failed += attempt(calls, cudaErrorMemoryAllocation) == "OutOfMemory";
    if (calls % 5 == 0) CHECK((after_ten_steps(kNets[0], {}) == right));
  }
  CHECK(failed > 10);
  CHECK((after_ten_steps(kNets[0], {}) == right));
}
