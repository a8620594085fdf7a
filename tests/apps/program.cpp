#include "program.h"

#include <fcntl.h>
#include <pty.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "../catch.hpp"
#include "tandem/data/digits.h"

namespace tandem::test {

namespace fs = std::filesystem;

namespace {

std::vector<std::string> environment(const TempDir& folder, const ProgramOptions& options) {
  std::map<std::string, std::string> variables = options.environment;
  variables.insert({{"HOME", folder.path()},
                    {"XDG_CACHE_HOME", folder.file("cache")},
                    {"PATH", "/usr/bin:/bin"},
                    {"TERM", "xterm"}});
  // The program's BLAS shall be the one that this process has: tests compare their bytes.
  for (const char* name : {"OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"}) {
    if (const char* value = std::getenv(name)) variables.insert({name, value});
  }
  std::vector<std::string> lines;
  for (const auto& [name, value] : variables) lines.push_back(name + "=" + value);
  return lines;
}

std::vector<char*> pointers(const std::vector<std::string>& texts) {
  std::vector<char*> out;
  for (const std::string& text : texts) out.push_back(const_cast<char*>(text.c_str()));
  out.push_back(nullptr);
  return out;
}

void limit(int resource, uint64_t value) {
  const rlimit both{value, value};
  if (value > 0 && setrlimit(static_cast<__rlimit_resource>(resource), &both) != 0) _exit(126);
}

void redirect(const std::string& path, int to) {
  const int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0666);
  if (file < 0 || dup2(file, to) < 0) _exit(126);
}

}  // namespace

Program::Program(const TempDir& folder, const std::vector<std::string>& arguments, const ProgramOptions& options) {
  static std::atomic<int> runs = 0;
  // Beside the folder, not in it: tests look at what the program left there.
  log_ = folder.path() + "-run" + std::to_string(runs++);
  std::vector<std::string> words = {TANDEM_PROGRAM};
  words.insert(words.end(), arguments.begin(), arguments.end());
  const std::vector<std::string> variables = environment(folder, options);
  const std::vector<char*> argv = pointers(words), envp = pointers(variables);
  int theirs = -1;
  const winsize size{24, 80, 0, 0};
  if (options.terminal) REQUIRE(openpty(&terminal_, &theirs, nullptr, nullptr, &size) == 0);
  pid_ = fork();
  REQUIRE(pid_ >= 0);
  if (pid_ > 0) {
    if (theirs >= 0) close(theirs);
    return;
  }
  redirect(options.out_path.empty() ? log_ + ".out" : options.out_path, STDOUT_FILENO);
  redirect(log_ + ".err", STDERR_FILENO);
  int ends[2];
  if (options.broken_pipe && (pipe(ends) != 0 || dup2(ends[1], STDOUT_FILENO) < 0 || close(ends[0]) != 0)) _exit(126);
  if (theirs >= 0 && dup2(theirs, STDERR_FILENO) < 0) _exit(126);
  limit(RLIMIT_FSIZE, options.max_file_size);
  limit(RLIMIT_AS, options.max_memory);
  if (chdir(folder.path().c_str()) == 0) execve(argv[0], argv.data(), envp.data());
  _exit(127);
}

Program::~Program() {
  if (running_) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (terminal_ >= 0) close(terminal_);
  std::error_code ignored;
  fs::remove(log_ + ".out", ignored);
  fs::remove(log_ + ".err", ignored);
}

void Program::signal(int number) const { kill(pid_, number); }

Outcome Program::wait() {
  std::string shown;
  char buffer[4096];
  for (ssize_t n; terminal_ >= 0 && (n = read(terminal_, buffer, sizeof buffer)) > 0;) shown.append(buffer, n);
  int status = 0;
  REQUIRE(waitpid(pid_, &status, 0) == pid_);
  running_ = false;
  return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), read_text(log_ + ".out"),
          terminal_ >= 0 ? shown : read_text(log_ + ".err")};
}

bool have_terminals() {
  int ours = -1, theirs = -1;
  if (openpty(&ours, &theirs, nullptr, nullptr, nullptr) == 0) {
    close(ours);
    close(theirs);
    return true;
  }
  std::printf("SKIPPED: no pseudo-terminal can be had; /dev/pts is not mounted\n");
  return false;
}

Outcome tandem_program(const TempDir& folder, const std::vector<std::string>& arguments,
                       const ProgramOptions& options) {
  return Program(folder, arguments, options).wait();
}

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

bool exists(const std::string& path) { return fs::exists(path); }

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> names;
  if (!fs::exists(folder)) return names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

void write_small_mnist(const std::string& folder, int64_t train, int64_t test) {
  fs::create_directories(folder);
  const auto write = [&](const std::string& name, int64_t n, uint64_t seed) {
    const Dataset digits = make_digits(n, seed);
    const std::vector<int32_t> labels = digits.y.to_vector<int32_t>();
    const auto file = [&](const char* kind, const std::vector<uint32_t>& extents,
                          const std::vector<uint8_t>& elements) {
      std::ofstream out(folder + "/" + name + kind, std::ios::binary);
      for (const auto& part : {idx_header(extents), elements}) {
        out.write(reinterpret_cast<const char*>(part.data()), static_cast<std::streamsize>(part.size()));
      }
    };
    file("-images-idx3-ubyte", {static_cast<uint32_t>(n), 28, 28}, digits.x.to_vector<uint8_t>());
    file("-labels-idx1-ubyte", {static_cast<uint32_t>(n)}, std::vector<uint8_t>(labels.begin(), labels.end()));
  };
  write("train", train, 11);
  write("t10k", test, 12);
}

}  // namespace tandem::test
