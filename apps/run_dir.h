// The directory of a run: created once, never overwritten by accident, its files whole or absent.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>

#include "trainer.h"

namespace tandem {

class RunDir {
 public:
  // `out`, or runs/<time>_<label> when it is empty (a number is appended while that name is taken). Throws
  // IoError if it cannot be made, if another process is writing there, or if it is not empty; `force` then
  // removes an earlier run's files, and only those.
  RunDir(const std::string& out, const std::string& label, bool force);
  // Removes the run's files, and the folder if it was made here, unless keep() was called: a run that failed
  // before its first step leaves nothing.
  ~RunDir();
  void keep() { kept_ = true; }
  RunDir(const RunDir&) = delete;
  RunDir& operator=(const RunDir&) = delete;

  const std::string& path() const { return path_; }
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  // Whole or not at all; indented, with a newline. Throws IoError.
  void write_json(const std::string& name, const nlohmann::ordered_json& value) const;

 private:
  std::string path_;
  bool auto_named_, made_ = true, kept_ = false;
  int lock_ = -1;  // a descriptor of the directory, locked while the run lasts
};

// "mnist-w2-bn_s1": the data set, the model, the arm and the seed, for names of runs.
std::string run_label(const TrainSettings& settings, const std::string& dataset);

// What files and --json say of settings, of a result and of the environment.
nlohmann::ordered_json to_json(const TrainSettings& settings);
nlohmann::ordered_json to_json(const Evaluation& evaluation);  // loss, accuracy, correct, count
nlohmann::ordered_json environment(const Splits& data);
std::string dataset_hash(const Dataset& data);  // SHA-256 of the SHA-256s (hex) of images and labels in use

}  // namespace tandem
