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
#include <regex>
#include <system_error>

#include "options.h"
#include "tandem/core/file.h"
#include "tandem/core/hash.h"
#include "tandem/core/threads.h"
#include "tandem/core/version.h"
#include "terminal.h"

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
std::string make_unique(const std::string& label, std::vector<fs::path>& made) {
  if (::mkdir("runs", 0777) == 0) {
    made.push_back("runs");
  } else if (errno != EEXIST) {
    fail("runs", system_reason(errno));
  }
  const std::string base = fmt::format("runs/{}_{}", time_stamp(), label);
  for (int i = 1;; ++i) {
    const std::string path = i == 1 ? base : fmt::format("{}-{}", base, i);
    if (::mkdir(path.c_str(), 0777) == 0) return made.emplace_back(path).string();
    if (errno != EEXIST) fail(path, system_reason(errno));
  }
}

// Makes `path` and the folders above it that are missing.
void make_all(const fs::path& path, std::vector<fs::path>& made) {
  std::error_code error;
  if (path.empty() || fs::is_directory(path, error)) return;
  make_all(path.parent_path(), made);
  if (::mkdir(path.c_str(), 0777) == 0) {
    made.push_back(path);
  } else if (errno != EEXIST || !fs::is_directory(path, error)) {
    throw fs::filesystem_error("", std::error_code(errno == EEXIST ? ENOTDIR : errno, std::generic_category()));
  }
}

// A file that a run writes, or a half of one that was never finished (see write_file).
bool is_run_file(const std::string& name) {
  static const std::regex known(
      "(RESULT\\.json|config\\.json|env\\.json|metrics\\.jsonl|metrics\\.csv|model\\.safetensors|report\\.html)"
      "(\\.part-\\d+)?|events\\.out\\.tfevents\\..*");
  return std::regex_match(name, known);
}

// The folder of one run of a comparison.
bool is_arm_folder(const fs::directory_entry& entry) {
  static const std::regex known("seed\\d+_(plain|bn|again)");
  return entry.is_directory() && !entry.is_symlink() && std::regex_match(entry.path().filename().string(), known);
}

// Which command of this program wrote the folder, by its own files; empty if none did.
std::string writer_of(const fs::path& folder) {
  for (const char* name : {"RESULT.json", "config.json"}) {
    std::ifstream file(folder / name);
    const Json json = Json::parse(file, nullptr, false);
    if (json.is_object() && json.contains("tool") && json["tool"] == "tandem" && json.contains("command") &&
        json["command"].is_string())
      return json["command"];
  }
  return "";
}

// The files of a run in `folder`, and those of a comparison's runs, as paths from there.
std::vector<fs::path> run_files(const fs::path& folder, bool comparison) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const fs::path name = entry.path().filename();
    if (comparison && is_arm_folder(entry)) {
      for (const fs::path& file : run_files(entry.path(), false)) files.push_back(name / file);
    } else if (is_run_file(name.string())) {
      files.push_back(name);
    }
  }
  return files;
}

// Moves `files` from one folder to another; folders that are empty then go.
void move_files(const std::vector<fs::path>& files, const fs::path& from, const fs::path& to) {
  for (const fs::path& file : files) {
    fs::create_directories((to / file).parent_path());
    fs::rename(from / file, to / file);
    std::error_code not_empty;
    if (file.has_parent_path()) fs::remove((from / file).parent_path(), not_empty);
  }
}

std::string cpu_model() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    if (line.starts_with("model name")) return line.substr(line.find(": ") + 2);
  }
  return "unknown";
}

}  // namespace

RunDir::RunDir(const std::string& out, const std::string& command, const std::string& label, bool force) : path_(out) {
  try {
    if (out.empty()) {
      path_ = make_unique(label, made_);
    } else {
      make_all(fs::path(out), made_);
    }
    lock();
    move_aside(command, force);
  } catch (const fs::filesystem_error& e) {
    move_back();
    remove_made();
    fail(path_, e.code().message());
  } catch (...) {
    remove_made();
    throw;
  }
}

RunDir::~RunDir() {
  if (!kept_) {
    try {
      for (const fs::path& file : run_files(path_, false)) fs::remove(path_ / file);
    } catch (const fs::filesystem_error&) {  // what is in the way stays
    }
    move_back();
    remove_made();
  } else if (lock_ >= 0) {
    ::close(lock_);
  }
}

void RunDir::keep() {
  if (kept_.exchange(true)) return;
  std::error_code stays;
  if (!aside_.empty()) fs::remove_all(aside_, stays);
}

void RunDir::lock() {
  lock_ = ::open(path_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (lock_ < 0) fail(path_, system_reason(errno));
  // Some network file systems cannot lock: then nothing is known about others.
  if (::flock(lock_, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK) fail(path_, "another process is writing there");
}

void RunDir::move_aside(const std::string& command, bool force) {
  if (fs::is_empty(path_)) return;
  const std::string writer = writer_of(path_);
  if (!force || writer != command) {
    const std::string held = writer.empty()                    ? "files that are no run's"
                             : writer != command               ? fmt::format("what `tandem {}` wrote", writer)
                             : fs::exists(file("RESULT.json")) ? "a finished run"
                                                               : "an unfinished run";
    fail(path_, fmt::format("expected an empty folder, it holds {}; choose another --out{}", held,
                            writer == command ? ", or --force to replace it" : ""));
  }
  old_ = run_files(path_, writer == "compare");
  aside_ = fs::path(path_) / fmt::format("replaced-{}", ::getpid());
  fs::create_directory(aside_);
  move_files(old_, path_, aside_);
}

// What cannot be moved back is still there, aside.
void RunDir::move_back() {
  if (aside_.empty()) return;
  try {
    std::erase_if(old_, [&](const fs::path& file) { return !fs::exists(aside_ / file); });
    move_files(old_, aside_, path_);
    fs::remove(aside_);
  } catch (const fs::filesystem_error&) {
  }
}

void RunDir::remove_made() {
  if (lock_ >= 0) ::close(lock_);
  std::error_code not_empty;
  for (; !made_.empty(); made_.pop_back()) fs::remove(made_.back(), not_empty);
}

void RunDir::write_json(const std::string& name, const Json& value) const { write_file(file(name), indented(value)); }

std::string run_label(const TrainSettings& s, const std::string& dataset) {
  return fmt::format("{}-{}-{}_s{}", dataset, s.model, s.bn ? "bn" : "plain", s.seed);
}

Json to_json(const TrainSettings& s) {
  return {{"tool", "tandem"},
          {"command", "train"},
          {"model", s.model},
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
          {"from", s.from.empty() ? Json() : Json(s.from)},
          {"from_sha256", s.from.empty() ? Json() : Json(s.from_sha256)},
          {"seed", s.seed},
          {"eval_every", s.eval_every},
          {"log_every", s.log_every},
          {"device", s.device},
          {"threads", s.threads},
          {"dtype", s.dtype},
          {"precision", s.precision},
          {"eager", s.eager},
          {"check_plan", s.check_plan}};
}

Json to_json(const Evaluation& e) {
  return {{"loss", e.loss}, {"accuracy", e.accuracy}, {"correct", e.correct}, {"count", e.count}};
}

// SHA-256 of the SHA-256s (hex) of images and labels in use.
static std::string dataset_hash(const Dataset& data) {
  const auto hash_of = [&](const Tensor& x) {
    const Tensor host = x.to(Device::cpu());
    const View all = host;
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
          {"build_type", TANDEM_BUILD_TYPE},
          {"build_flags", TANDEM_BUILD_FLAGS},
          {"cpu", cpu_model()},
          {"cpu_path", cpu_path()},
          {"blas", blas_description()},
          {"cuda", cuda_fault().empty()},
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
