#include "steps.h"

#include <iostream>

#include "../training.h"
#include "tandem/core/autograd.h"
#include "tandem/core/cuda.h"
#include "tandem/core/ops.h"
#include "tandem/layers/build.h"

namespace tandem::test {

namespace {

using Tensors = std::vector<Tensor>;
const Shape kImage{7, 6, 2};

}  // namespace

bool no_gpu() {
  if (!cuda::devices().all.empty()) return false;
  std::cout << "SKIPPED: " << cuda::devices().why_none << std::endl;
  return true;
}

std::string device_error(const std::function<void()>& f) {
  return error_of([&] {
    f();
    cuda::synchronize(kGpu);
  });
}

const std::vector<GpuNet> kGpuNets = {
    {"dense:16,bn,relu,dense:10"},
    {"dense:16,bn,sigmoid,dropout:0.4,dense:10", true},
    {"conv:4:k=3:p=1,bn,relu,maxpool,conv:6:k=3,bn,tanh,dense:10"},
    {"conv:4:k=3,relu,bn,gap,dense:10", true, Dtype::float64},
    {"bn,conv:6:k=3:g=2:bias=on,gn:3,relu,avgpool,dense:10"},
};

GpuTrainer::GpuTrainer(const GpuNet& net, CompileOptions options)
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

Tensors GpuTrainer::run(const Tensors& in) {
  optimizer->zero_grad();
  const Tensor logits = (*model)(in[0]), loss = cross_entropy(logits, in[1]);
  loss.backward();
  clip_grad_norm(model->parameters(), 2);
  optimizer->step();
  log.note(loss, logits, in[1]);
  return {loss};
}

Tensors gpu_batch(int64_t n, uint64_t seed, Dtype dtype) {
  std::vector<int32_t> labels;
  for (int64_t i = 0; i < n; ++i) labels.push_back(static_cast<int32_t>((i * 7 + static_cast<int64_t>(seed)) % 10));
  return {random(kImage.insert(0, n), seed, dtype, 0, 1).to(kGpu), Tensor::from(labels, {n}, kGpu)};
}

Bytes after_ten_steps(const GpuNet& net, const CompileOptions& options, bool moving) {
  GpuTrainer t(net, options);
  Tensors fixed;
  std::vector<Tensors> alive;  // so that the next ones are elsewhere
  Bytes all;
  for (uint64_t i = 0; i < 10; ++i) {
    Tensors in = gpu_batch(i % 4 == 3 ? 3 : 8, i, net.dtype);
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

std::vector<uint8_t> trained_on_gpu(int steps) {
  const auto model = build("conv:4:k=3,bn,relu,dense:10", {6, 6, 2}, {.seed = 1});
  model->to(kGpu);
  SGD sgd(model->parameters(), {.lr = 0.1, .momentum = 0.9});
  for (int i = 0; i < steps; ++i) {
    sgd.zero_grad();
    const Tensor x = random({5, 6, 6, 2}, static_cast<uint64_t>(i)).to(kGpu);
    cross_entropy((*model)(x), Tensor::from(std::vector<int32_t>{0, 1, 2, 3, 9}, {5}, kGpu)).backward();
    sgd.step();
  }
  std::vector<uint8_t> all;
  for (const auto& [name, tensor] : model->state_dict()) {
    const std::vector<uint8_t> one = bytes(tensor);
    all.insert(all.end(), one.begin(), one.end());
  }
  return all;
}

}  // namespace tandem::test
