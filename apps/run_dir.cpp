#include "run_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "tandem/core/file.h"
#include "tandem/core/hash.h"
#include "tandem/core/threads.h"
#include "tandem/core/version.h"

namespace tandem {

namespace fs = std::filesystem;
using Json = nlohmann::ordered_json;

namespace {

[[noreturn]] void fail(const std::string& path, const std::string& reason) {
  throw IoError(fmt::format("run directory {}: {}", path, reason));
}
std::string system_reason(int error) { return std::generic_category().message(error); }

// "2025-11-20T12-00-00", local time.
std::string time_stamp() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H-%M-%S", &local);
  return text;
}

// Makes a folder of its own under runs/: mkdir, not a look before, decides who has a name.
std::string make_unique(const std::string& label) {
  if (::mkdir("runs", 0777) != 0 && errno != EEXIST) fail("runs", system_reason(errno));
  const std::string base = fmt::format("runs/{}_{}", time_stamp(), label);
  for (int i = 1;; ++i) {
    const std::string path = i == 1 ? base : fmt::format("{}-{}", base, i);
    if (::mkdir(path.c_str(), 0777) == 0) return path;
    if (errno != EEXIST) fail(path, system_reason(errno));
  }
}

bool is_run_file(const std::string& name) {
  static constexpr const char* names[] = {"RESULT.json",   "config.json", "env.json",
                                          "metrics.jsonl", "metrics.csv", "model.safetensors"};
  return name.starts_with("events.out.tfevents.") ||
         std::find(std::begin(names), std::end(names), name) != std::end(names);
}

void remove_run_files(const std::string& path) {
  for (const auto& entry : fs::directory_iterator(path)) {
    if (is_run_file(entry.path().filename())) fs::remove(entry.path());
  }
}

// Nothing may be in the way, or `force` and only an earlier run's files, which are removed.
void clear(const std::string& path, bool force) {
  if (fs::is_empty(path)) return;
  if (!force) {
    const bool finished = fs::exists(path + "/RESULT.json");
    fail(path, fmt::format("expected an empty folder, it holds {}; choose another --out, or --force to replace it",
                           finished ? "a finished run" : "files"));
  }
  remove_run_files(path);
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(": ") + 2);
  }
  return "unknown";
}

}  // namespace

RunDir::RunDir(const std::string& out, const std::string& label, bool force) : path_(out), auto_named_(out.empty()) {
  if (auto_named_) {
    path_ = make_unique(label);
  } else {
    std::error_code error;
    made_ = fs::create_directories(path_, error);
    if (error) fail(path_, error.message());
  }
  lock_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) fail(path_, system_reason(errno));
  // Some network file systems cannot lock: then nothing is known about others.
  const bool taken = ::flock(lock_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK;
  try {
    if (taken) fail(path_, "another process is writing there");
    clear(path_, force);
  } catch (const fs::filesystem_error& e) {
    ::close(lock_);
    fail(path_, e.code().message());
  } catch (...) {
    ::close(lock_);
    throw;
  }
}

RunDir::~RunDir() {
  if (!kept_) {
    try {
      remove_run_files(path_);
      if (made_) fs::remove(path_);
      if (auto_named_) fs::remove("runs");
    } catch (const fs::filesystem_error&) {  // what is in the way stays
    }
  }
  ::close(lock_);
}

void RunDir::write_json(const std::string& name, const Json& value) const {
  write_file(file(name), value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

std::string run_label(const TrainSettings& s, const std::string& dataset) {
  return fmt::format("{}-{}-{}_s{}", dataset, s.model, s.bn ? "bn" : "plain", s.seed);
}

Json to_json(const TrainSettings& s) {
  return {{"model", s.model},
          {"layers", s.layers},
          {"bn", s.bn},
          {"dataset", s.dataset},
          {"data", s.data_dir},
          {"shift", s.shift},
          {"epochs", s.epochs ? Json(*s.epochs) : Json()},
          {"max_steps", s.max_steps},
          {"batch_size", s.batch_size.value_or(0)},
          {"last_batch", s.last_batch},
          {"optimizer", s.optimizer},
          {"lr", s.lr.value_or(0)},
          {"momentum", s.momentum},
          {"nesterov", s.nesterov},
          {"weight_decay", s.weight_decay.value_or(0)},
          {"decay", s.decay},
          {"clip", s.clip},
          {"label_smoothing", s.label_smoothing},
          {"schedule", s.schedule},
          {"warmup", s.warmup},
          {"step_size", s.step_size},
          {"gamma", s.gamma},
          {"seed", s.seed},
          {"eval_every", s.eval_every},
          {"log_every", s.log_every},
          {"device", s.device},
          {"threads", s.threads},
          {"dtype", s.dtype}};
}

Json to_json(const Evaluation& e) {
  return {{"loss", e.loss}, {"accuracy", e.accuracy}, {"correct", e.correct}, {"count", e.count}};
}

std::string dataset_hash(const Dataset& data) {
  const auto hash_of = [&](const View& all) {
    const int64_t row = all.dims.numel() / all.dims[0] * size_of(all.dtype);
    return sha256(static_cast<const char*>(all.data) + data.begin * row, static_cast<size_t>(data.count * row));
  };
  const std::string both = hash_of(data.x) + hash_of(data.y);
  return sha256(both.data(), both.size());
}

Json environment(const Splits& data) {
  return {{"version", version()},
          {"commit", commit()},
          {"compiler", compiler()},
          {"cpu", cpu_model()},
          {"cpu_path", cpu_path()},
          {"blas", blas_description()},
          {"cores", available_cores()},
          {"threads", threads()},
          {"dataset",
           {{"name", data.train.name},
            {"train", data.train.size()},
            {"validation", data.validation.size()},
            {"test", data.test.size()},
            {"train_sha256", dataset_hash(data.train)},
            {"test_sha256", dataset_hash(data.test)}}}};
}

}  // namespace tandem
