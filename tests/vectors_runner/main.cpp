// tandem_vectors: checks Tandem against files of test vectors.
//
//   tandem_vectors PATH... [--device D] [--tag T] [--json]
//
// A PATH is a file or a folder of .json files. One line per failure, then the counts. Exit status: 0 only when
// nothing failed; 1 when something did, a file could not be read, or no case was chosen; 2 for wrong usage.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>

#include "tandem/core/device.h"
#include "tandem/core/error.h"
#include "vector_case.h"

namespace tandem::vectors {

Check checker_of(const std::string& op) {
  static const std::map<std::string, Check> checks = {
      {"linear", check_linear},
      {"conv2d", check_conv2d},
      {"relu", check_relu},
      {"cross_entropy", check_cross_entropy},
      {"max_pool2d", check_max_pool2d},
      {"avg_pool2d", check_avg_pool2d},
      {"batch_norm", check_batch_norm},
      {"batch_norm_generated", check_batch_norm_generated},
      {"batch_norm_contract", check_batch_norm_contract},
      {"batch_norm_shared", check_batch_norm_shared},
      {"batch_norm_properties", check_batch_norm_properties},
      {"momentum_conversion", check_momentum_conversion},
      {"optimizer", check_optimizer},
      {"train_network", check_train_network},
      {"fold_bn", check_fold_bn},
      {"recalibrate", check_recalibrate},
      {"merge_moments", check_merge_moments},
  };
  const auto found = checks.find(op);
  if (found == checks.end()) throw FormatError(fmt::format("unknown op \"{}\"", op));
  return found->second;
}

namespace {

struct Options {
  std::vector<std::string> paths;
  Device device;
  std::string tag;
  bool json = false;
};

struct Counts {
  int passed = 0, failed = 0, missed = 0, best_reached = 0, best_offered = 0;
  std::map<std::string, int> skipped;  // by tag
  int total() const {
    int skips = 0;
    for (const auto& [tag, n] : skipped) skips += n;
    return passed + failed + missed + skips;
  }
};

// Prints what happened, one line each: text, or JSON objects.
class Reporter {
 public:
  explicit Reporter(bool json) : json_(json) {}

  void line(const std::string& status, const std::string& id, const std::string& message) const {
    if (!json_) fmt::print("{} {}: {}\n", status, id, message);
  }
  void result(const Case& c, const std::string& status, const std::vector<std::string>& messages) const {
    for (const std::string& message : messages) line(status, c.id(), message);
    if (!json_) return;
    Json object = {{"id", c.id()}, {"op", c.op()}, {"tags", c.tags()}, {"status", status}, {"messages", messages}};
    if (c.has_best()) object["best"] = c.best_failures().empty();
    fmt::print("{}\n", object.dump());
  }
  void file_failed(const std::string& path, const std::string& why) const {
    line("failed", path, why);
    if (json_) fmt::print("{}\n", Json{{"file", path}, {"status", "failed"}, {"messages", {why}}}.dump());
  }
  void counts(const Counts& n) const {
    if (json_) {
      fmt::print("{}\n", Json{{"passed", n.passed},
                              {"failed", n.failed},
                              {"skipped", n.skipped},
                              {"missed", n.missed},
                              {"best_reached", n.best_reached},
                              {"best_offered", n.best_offered}}
                             .dump());
      return;
    }
    std::string skipped;
    for (const auto& [tag, count] : n.skipped) skipped += fmt::format(", {} skipped ({})", count, tag);
    fmt::print("{} passed, {} failed{}, {} missed; the best level reached in {} of {} cases that have one\n", n.passed,
               n.failed, skipped.empty() ? ", 0 skipped" : skipped, n.missed, n.best_reached, n.best_offered);
  }

 private:
  bool json_;
};

// Why the case may be skipped, or "" once it was checked; what went wrong is in the case.
std::string check(Case& c) {
  try {
    checker_of(c.op())(c);
    c.require_all_read();
    if (c.checks() == 0 && c.failures().empty()) c.fail("nothing was compared");
  } catch (const Unsupported& reason) {
    if (c.has_tag("optional")) return reason.what();
    c.fail(fmt::format("{}, and only cases tagged optional may be skipped", reason.what()));
  } catch (const std::exception& error) {
    c.fail(error.what());
  }
  return "";
}

void run_case(Case& c, const Reporter& reporter, Counts& counts) {
  const std::string skip = check(c);
  if (!skip.empty()) {
    ++counts.skipped["optional"];
    return reporter.result(c, "skipped", {skip});
  }
  const bool ok = c.failures().empty();
  if (c.has_best() && ok) {
    ++counts.best_offered;
    counts.best_reached += c.best_failures().empty();
    for (const std::string& message : c.best_failures()) reporter.line("below the best level", c.id(), message);
  }
  if (ok)
    ++counts.passed;
  else if (c.has_tag("stretch"))
    ++counts.missed;
  else
    ++counts.failed;
  reporter.result(c, ok ? "passed" : c.has_tag("stretch") ? "missed" : "failed", c.failures());
}

void run_file(const std::string& path, const Options& options, const Reporter& reporter, Counts& counts) {
  Json file;
  try {
    std::ifstream stream(path);
    if (!stream) throw FormatError("cannot be opened");
    file = Json::parse(stream);
    if (file.at("schema") != "tandem-vectors/1") throw FormatError("the schema is not tandem-vectors/1");
    if (!file.at("cases").is_array() || file["cases"].empty()) throw FormatError("there are no cases");
  } catch (const std::exception& error) {
    ++counts.failed;
    return reporter.file_failed(path, error.what());
  }
  for (const Json& json : file["cases"]) {
    try {
      Case c(json, options.device);
      if (options.tag.empty() || c.has_tag(options.tag)) run_case(c, reporter, counts);
    } catch (const std::exception& error) {  // a case without id, op or tags
      ++counts.failed;
      reporter.file_failed(path, error.what());
    }
  }
}

// The .json files of a folder, sorted; any other path itself.
std::vector<std::string> files_of(const std::string& path) {
  namespace fs = std::filesystem;
  if (!fs::is_directory(path)) return {path};
  std::vector<std::string> files;
  for (const auto& entry : fs::directory_iterator(path)) {
    if (entry.path().extension() == ".json") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto value = [&]() -> std::string {
      if (i + 1 >= argc) throw FormatError(word + " needs a value");
      return argv[++i];
    };
    if (word == "--device")
      options.device = Device::parse(value());
    else if (word == "--tag")
      options.tag = value();
    else if (word == "--json")
      options.json = true;
    else if (word.rfind("--", 0) == 0)
      throw FormatError("unknown flag " + word);
    else
      options.paths.push_back(word);
  }
  if (options.paths.empty()) throw FormatError("no PATH given");
  return options;
}

int run(const Options& options) {
  require_device(options.device);
  const Reporter reporter(options.json);
  Counts counts;
  for (const std::string& path : options.paths) {
    const std::vector<std::string> files = files_of(path);
    if (files.empty()) {
      ++counts.failed;
      reporter.file_failed(path, "the folder holds no .json file");
    }
    for (const std::string& file : files) run_file(file, options, reporter, counts);
  }
  reporter.counts(counts);
  if (counts.total() > 0) return counts.failed == 0 ? 0 : 1;
  fmt::print(stderr, "tandem_vectors: no case has the tag \"{}\"\n", options.tag);
  return 1;
}

}  // namespace
}  // namespace tandem::vectors

int main(int argc, char** argv) {
  using namespace tandem::vectors;
  Options options;
  try {
    options = parse(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "tandem_vectors: {}\nusage: tandem_vectors PATH... [--device D] [--tag T] [--json]\n",
               error.what());
    return 2;
  }
  try {
    return run(options);
  } catch (const std::exception& error) {
    fmt::print(stderr, "tandem_vectors: {}\n", error.what());
    return 1;
  }
}
