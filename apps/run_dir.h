// The directory of a run: created once, never overwritten by accident, its files whole or absent.
#pragma once

#include <atomic>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "trainer.h"

namespace tandem {

class RunDir {
 public:
  // `out`, or runs/<time>_<label> when it is empty (a number is appended while that name is taken). Throws
  // IoError if it cannot be made, if another process is writing there, or if it is not empty; with `force`, only
  // if what it holds is no run of the same command of this program. Of what is replaced only its own files go: they
  // are moved aside, deleted by keep() and moved back if the new run fails before that.
  RunDir(const std::string& out, const std::string& command, const std::string& label, bool force);
  // Unless keep() was called, leaves everything as it was: a run that failed before its first step leaves nothing.
  ~RunDir();
  void keep();  // from any thread
  RunDir(const RunDir&) = delete;
  RunDir& operator=(const RunDir&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  // Whole or not at all; indented, with a newline. Throws IoError.
  void write_json(const std::string& name, const nlohmann::ordered_json& value) const;

 private:
  void lock();
  void move_aside(const std::string& command, bool force);
  void move_back();
  void remove_made();

  std::string path_;
  std::vector<std::filesystem::path> made_;  // folders made here, the outermost first
  std::vector<std::filesystem::path> old_;   // files of the run that is replaced, relative to both folders
  std::filesystem::path aside_;              // where they are meanwhile
  std::atomic<bool> kept_{false};
  int lock_ = -1;  // a descriptor of the directory, locked while the run lasts
};

// "mnist-w2-bn_s1": the data set, the model, the arm and the seed, for names of runs.
std::string run_label(const TrainSettings& settings, const std::string& dataset);

// What files and --json say of settings, of a result and of the environment.
nlohmann::ordered_json to_json(const TrainSettings& settings);
nlohmann::ordered_json to_json(const Evaluation& evaluation);  // loss, accuracy, correct, count
nlohmann::ordered_json environment(const Splits& data);

}  // namespace tandem
