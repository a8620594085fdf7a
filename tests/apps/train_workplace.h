// Where tests of `tandem train` run it.
#pragma once

#include <chrono>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

#include "program.h"

namespace tandem::test {

// A folder with a small data set and the arguments that train on it.
struct TrainWorkplace {
  TempDir dir;
  TrainWorkplace() { write_small_mnist(dir.file("data/mnist"), 1200, 300); }

  std::vector<std::string> command(const std::vector<std::string>& more) const {
    std::vector<std::string> words = {
        "train", "--dataset", "mnist", "--data", "data", "--layers", "dense:32,bn,relu,dense:10", "--batch-size", "50"};
    words.insert(words.end(), more.begin(), more.end());
    return words;
  }
  Outcome train(const std::vector<std::string>& more, const ProgramOptions& options = {}) const {
    return tandem_program(dir, command(more), options);
  }
  nlohmann::json result(const std::string& run) const {
    return nlohmann::json::parse(read_text(dir.file(run + "/RESULT.json")));
  }
  std::vector<nlohmann::json> metrics(const std::string& run) const {
    std::vector<nlohmann::json> records;
    std::istringstream lines(read_text(dir.file(run + "/metrics.jsonl")));
    for (std::string line; std::getline(lines, line);) records.push_back(nlohmann::json::parse(line));
    return records;
  }
  std::string model(const std::string& run) const { return read_text(dir.file(run + "/model.safetensors")); }
};

inline void wait_for_file(const std::string& path, size_t size) {
  for (int i = 0; i < 2000 && (!exists(path) || std::filesystem::file_size(path) < size); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
}

}  // namespace tandem::test
