// A training step of PyTorch's C++ library, timed: torch_peer.py without Python. against_torch --libtorch builds it.
#include <sched.h>
#include <sys/resource.h>
#include <torch/torch.h>
#include <torch/version.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <chrono>
#include <ctime>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>
#include <sstream>

namespace {

using Clock = std::chrono::steady_clock;

struct Convolution {
  int64_t in, out, stride;
};
// As peer.py has it.
struct Workload {
  int64_t batch;
  double rate;
  std::vector<Convolution> convolutions;
  std::vector<int64_t> sizes;
};
constexpr int64_t kImages = 55000;

Workload workload(const std::string& name) {
  if (name == "w1") return {60, 0.1, {}, {784, 100, 100, 100, 10}};
  if (name == "w2") return {128, 0.1, {}, {784, 512, 256, 128, 10}};
  return {128, 0.05, {{1, 32, 1}, {32, 32, 2}, {32, 64, 1}, {64, 64, 2}}, {3136, 128, 10}};
}

// The bytes of an IDX file after its header.
torch::Tensor read_idx(const std::string& path) {
  const gzFile file = gzopen(path.c_str(), "rb");
  if (!file) throw std::runtime_error(path + ": cannot be read");
  std::vector<uint8_t> raw;
  for (int got = 1 << 20; got == 1 << 20;) {
    const size_t size = raw.size();
    raw.resize(size + (1 << 20));
    got = gzread(file, raw.data() + size, 1 << 20);
    raw.resize(size + static_cast<size_t>(std::max(got, 0)));
  }
  gzclose(file);
  const size_t header = 4 + 4 * size_t{raw.at(3)};
  return torch::from_blob(raw.data() + header, {static_cast<int64_t>(raw.size() - header)}, torch::kUInt8).clone();
}

torch::nn::Sequential network(const std::string& name, const Workload& w, bool bn) {
  torch::NoGradGuard no_grad;
  torch::nn::Sequential net;
  const auto initialise = [&](auto& layer) {
    const double fan_in = static_cast<double>(layer->weight[0].numel());
    layer->weight.normal_(0, name == "w1" ? 0.1 : std::sqrt(2 / fan_in));
    if (layer->bias.defined()) layer->bias.zero_();
  };
  for (const Convolution& c : w.convolutions) {
    torch::nn::Conv2d layer(torch::nn::Conv2dOptions(c.in, c.out, 3).stride(c.stride).padding(1).bias(!bn));
    initialise(layer);
    net->push_back(layer);
    if (bn) net->push_back(torch::nn::BatchNorm2d(c.out));
    net->push_back(torch::nn::ReLU());
  }
  if (!w.convolutions.empty()) net->push_back(torch::nn::Flatten());
  for (size_t i = 0; i + 1 < w.sizes.size(); ++i) {
    const bool last = i + 2 == w.sizes.size();
    torch::nn::Linear layer(torch::nn::LinearOptions(w.sizes[i], w.sizes[i + 1]).bias(last || !bn));
    initialise(layer);
    net->push_back(layer);
    if (last) break;
    if (bn) net->push_back(torch::nn::BatchNorm1d(w.sizes[i + 1]));
    if (name == "w1")
      net->push_back(torch::nn::Sigmoid());
    else
      net->push_back(torch::nn::ReLU());
  }
  return net;
}

double seconds(Clock::time_point since) { return std::chrono::duration<double>(Clock::now() - since).count(); }

// Of this process; up to a tick (10 ms) too much, as the kernel rounds the start down.
double seconds_since_start() {
  std::stringstream stat;
  stat << std::ifstream("/proc/self/stat").rdbuf();
  std::istringstream fields(stat.str().substr(stat.str().rfind(')') + 2));
  double ticks = 0;
  std::string field;
  for (int i = 0; i < 20 && fields >> field; ++i) ticks = std::atof(field.c_str());
  timespec now;
  clock_gettime(CLOCK_BOOTTIME, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec) -
         ticks / static_cast<double>(sysconf(_SC_CLK_TCK));
}

double unix_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void run(const nlohmann::json& given) {
  if (!given["core"].is_null()) {
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(given["core"].get<size_t>(), &cores);
    sched_setaffinity(0, sizeof cores, &cores);
  }
  torch::set_num_threads(given["threads"].get<int>());
  torch::manual_seed(1);
  const std::string name = given["workload"], folder = given["data"];
  const Workload w = workload(name);
  const bool convolves = !w.convolutions.empty();
  const auto layout = given["layout"] == "nhwc" ? torch::MemoryFormat::ChannelsLast : torch::MemoryFormat::Contiguous;
  torch::Tensor images = read_idx(folder + "/train-images-idx3-ubyte.gz");
  images = images.reshape(convolves ? std::vector<int64_t>{-1, 1, 28, 28} : std::vector<int64_t>{-1, 784});
  images = images.narrow(0, 0, kImages).to(torch::kFloat32).div_(255);
  const torch::Tensor labels = read_idx(folder + "/train-labels-idx1-ubyte.gz").narrow(0, 0, kImages).to(torch::kInt64);

  torch::nn::Sequential net = network(name, w, given["bn"] == "on");
  if (convolves) {
    for (torch::Tensor& p : net->parameters()) {
      if (p.dim() == 4) p.set_data(p.data().contiguous(layout));
    }
  }
  torch::optim::SGD optimizer(net->parameters(), torch::optim::SGDOptions(w.rate).momentum(0.9));

  torch::Tensor order;
  int64_t at = kImages;
  const auto step = [&] {
    if (at + w.batch > kImages) {
      order = torch::randperm(kImages);
      at = 0;
    }
    const torch::Tensor index = order.narrow(0, at, w.batch);
    at += w.batch;
    torch::Tensor x = images.index_select(0, index);
    if (convolves) x = x.contiguous(layout);
    optimizer.zero_grad();
    const torch::Tensor loss = torch::nn::functional::cross_entropy(net->forward(x), labels.index_select(0, index));
    loss.backward();
    optimizer.step();
    return loss.detach();
  };

  torch::Tensor loss = step();
  const double loss_first = loss.item<double>(), first_step = seconds_since_start();
  for (int i = 0; i < 20; ++i) step();
  while (unix_time() < given["start_at"].get<double>()) step();  // the other process of a pair
  std::vector<double> times;
  const double limit = given["seconds"];
  for (const auto start = Clock::now(); seconds(start) < limit || times.size() < 10;) {
    const auto before = Clock::now();
    loss = step();
    times.push_back(seconds(before));
  }
  std::sort(times.begin(), times.end());
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  const nlohmann::json row = {
      {"ms", 1e3 * (times[times.size() / 2] + times[(times.size() - 1) / 2]) / 2},
      {"loss_first", loss_first},
      {"loss_last", loss.item<double>()},
      {"rss_mb", static_cast<double>(usage.ru_maxrss) / 1024},
      {"first_step_s", first_step},
      {"version", "libtorch " + std::to_string(TORCH_VERSION_MAJOR) + "." + std::to_string(TORCH_VERSION_MINOR)}};
  std::cout << row.dump() << std::endl;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: libtorch_peer JSON\n";
    return 2;
  }
  run(nlohmann::json::parse(argv[1]));
}
