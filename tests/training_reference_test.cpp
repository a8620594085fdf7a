// Step for step with PyTorch: the numbers in training_reference.json were recorded by peers/record_training.py.
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "catch.hpp"
#include "tandem/core/ops.h"
#include "tandem/layers/build.h"
#include "tandem/optim/optimizer.h"

using namespace tandem;

namespace {

uint64_t splitmix64(uint64_t x) {
  x += 0x9E3779B97F4A7C15;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EB;
  return x ^ (x >> 31);
}

// In [0, 1): the same numbers as `uniform` of record_training.py.
std::vector<double> uniform(uint64_t seed, int64_t count) {
  std::vector<double> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<double>(splitmix64(seed + i) >> 11) * 0x1p-53;
  return values;
}

constexpr uint64_t kBillion = 1'000'000'000;

void set_weights(Module& model) {
  uint64_t tensor = 0;
  for (const Parameter& p : model.parameters()) {
    if (p.tensor.rank() < 2) continue;
    std::vector<double> values = uniform(++tensor * kBillion, p.tensor.numel());
    const double scale = std::sqrt(24.0 / static_cast<double>(p.tensor.numel() / p.tensor.dim(0)));
    for (double& v : values) v = (v - 0.5) * scale;
    Tensor(p.tensor).copy_from(Tensor::from(values, p.tensor.shape()));
  }
}

double norm(const Tensor& x) {
  double squares = 0;
  for (const double v : x.to_vector<double>()) squares += v * v;
  return std::sqrt(squares);
}

void check_close(double got, double want, const std::string& what) {
  INFO(what << ": got " << got << ", PyTorch " << want);
  CHECK(std::abs(got - want) <= 1e-9 * std::max(1.0, std::abs(want)));
}

}  // namespace

TEST_CASE("w2 and w3 follow PyTorch for 100 steps to 1e-9 in losses and tensor norms") {
  std::ifstream file(TANDEM_TEST_DIR "/training_reference.json");
  const nlohmann::json reference = nlohmann::json::parse(file);
  for (const auto& expected : reference.at("networks")) {
    const std::string name = expected.at("model");
    const int64_t size = expected.at("batch");
    const auto model = build(model_text(name, true).layers, {28, 28, 1}, {.dtype = Dtype::float64});
    set_weights(*model);
    SGD sgd(model->parameters(), {.lr = expected.at("lr"), .momentum = 0.9});
    const auto& losses = expected.at("losses");
    REQUIRE(losses.size() == 100);
    for (size_t step = 0; step < losses.size(); ++step) {
      const uint64_t batch = step % 4;
      const Tensor x = Tensor::from(uniform((1000 + batch) * kBillion, size * 784), {size, 28, 28, 1});
      std::vector<int32_t> labels;
      for (const double u : uniform((2000 + batch) * kBillion, size)) labels.push_back(static_cast<int32_t>(u * 10));
      sgd.zero_grad();
      const Tensor loss = cross_entropy((*model)(x), Tensor::from(labels, {size}));
      check_close(loss.item(), losses[step], name + ", loss of step " + std::to_string(step + 1));
      loss.backward();
      sgd.step();
    }
    const auto& norms = expected.at("norms");
    size_t next = 0;
    for (const auto& [tensor_name, tensor] : model->state_dict()) {
      if (tensor_name.ends_with("num_batches_tracked")) continue;
      check_close(norm(tensor), norms.at(next++), name + ", norm of " + tensor_name);
    }
    CHECK(next == norms.size());
  }
}
