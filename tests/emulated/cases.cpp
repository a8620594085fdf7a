#include "cases.h"

#include <memory>

#include "../catch.hpp"
#include "../gradcheck.h"
#include "../helpers.h"
#include "../op_cases.h"
#include "tandem/core/autograd.h"
#include "tandem/core/cuda.h"
#include "tandem/optim/optimizer.h"
#include "tandem/optim/step_log.h"

namespace tandem::test {
namespace {

Bytes run_op(const OpCase& row, Tensors inputs) {
  for (Tensor& x : inputs) {
    if (x.defined()) x.zero_grad();
  }
  const Tensor y = row.op(inputs);
  if (y.requires_grad()) y.backward(probe(y));
  Bytes all = {bytes(y)};
  for (const Tensor& x : inputs) {
    if (x.defined() && x.grad().defined()) all.push_back(bytes(x.grad()));
  }
  return all;
}

// Two steps of an optimizer on tensors of several blocks and of one element, with clipping.
template <class O, class Options>
Bytes run_optimizer(const Options& options, Dtype dtype) {
  std::vector<Parameter> parameters;
  for (const Shape& shape : {Shape{70, 130}, Shape{1}, Shape{33}})
    parameters.push_back(random(shape, 5, dtype).to(Device::cuda()).set_requires_grad(true));
  O optimizer(parameters, options);
  Bytes all;
  for (uint64_t step = 0; step < 2; ++step) {
    for (Parameter& p : parameters) p.tensor.set_grad(random(p.tensor.shape(), step, dtype).to(Device::cuda()));
    clip_grad_norm(parameters, 0.5);
    optimizer.step();
    for (const Parameter& p : parameters) all.push_back(bytes(p.tensor));
  }
  return all;
}

Tensor labels(const std::vector<int32_t>& values) {
  return Tensor::from(values, {static_cast<int64_t>(values.size())}, Device::cuda());
}

std::vector<uint8_t> as_bytes(const std::string& text) { return {text.begin(), text.end()}; }

Bytes run_stray_labels(Dtype dtype) {
  std::vector<int32_t> some(300, 1);
  some[77] = 12, some[78] = -3, some[299] = 10;
  return {as_bytes(error_of([&] {
    cross_entropy(random({300, 10}, 1, dtype).to(Device::cuda()), labels(some));
    cuda::synchronize(Device::cuda());
  }))};
}

Bytes run_step_log(Dtype dtype) {
  StepLog log(2, Device::cuda());
  std::vector<int32_t> some(300);
  for (size_t i = 0; i < some.size(); ++i) some[i] = static_cast<int32_t>(i % 10);
  log.note(ones({}, {dtype, Device::cuda()}), random({300, 10}, 1, dtype).to(Device::cuda()), labels(some));
  const StepLog::Record record = log.take()[0];
  return {as_bytes(std::to_string(record.loss) + " " + std::to_string(record.correct))};
}

}  // namespace

Bytes wide_rows(int64_t width, Dtype dtype, Device device) {
  Tensor x = random({3, width}, 1, dtype, -3, 3).to(device).set_requires_grad(true);
  const int32_t last = static_cast<int32_t>(width) - 1;
  const Tensor loss =
      cross_entropy(x, Tensor::from(std::vector<int32_t>{0, last / 2, last}, {3}, device), {.label_smoothing = 0.1});
  (loss + sum(softmax(x) * random({3, width}, 2, dtype).to(device))).backward();
  return {bytes(loss), bytes(x.grad())};
}

std::vector<DeviceCase> device_cases(Dtype dtype) {
  REQUIRE(test_device() == Device::cuda());  // else set TANDEM_TEST_DEVICE=cuda
  std::vector<DeviceCase> cases;
  for (const OpCase& row : op_cases()) {
    std::vector<OpInputs> samples = row.samples;
    if (!row.large.empty()) samples.push_back(row.large);
    for (const OpInputs& sample : samples) {
      cases.push_back({row.name + " of " + to_string(sample[0].shape),
                       [&row, inputs = make_inputs(sample, dtype)] { return run_op(row, inputs); }});
    }
  }
  cases.push_back({"wide rows", [dtype] { return wide_rows(700, dtype, Device::cuda()); }});
  cases.push_back({"SGD", [dtype] { return run_optimizer<SGD>(SGDOptions{.lr = 0.1, .momentum = 0.9}, dtype); }});
  cases.push_back({"Adam", [dtype] { return run_optimizer<Adam>(AdamOptions{.lr = 0.1}, dtype); }});
  cases.push_back({"stray labels", [dtype] { return run_stray_labels(dtype); }});
  cases.push_back({"StepLog", [dtype] { return run_step_log(dtype); }});
  for (const GpuNet& net : kGpuNets) {  // with the plan's fusions
    if (net.dtype == dtype) cases.push_back({"steps of " + net.layers, [&net] { return after_ten_steps(net, {}); }});
  }
  return cases;
}

}  // namespace tandem::test
