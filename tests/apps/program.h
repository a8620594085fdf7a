// Runs the built program as a user would: arguments in, stdout, stderr and exit code out.
#pragma once

#include <sys/types.h>

#include <map>
#include <string>
#include <vector>

#include "../helpers.h"

namespace tandem::test {

struct Outcome {
  int exit_code = -1;  // 128 + signal if one ended it
  std::string out, err;
};

struct ProgramOptions {
  std::map<std::string, std::string> environment{};  // added to a bare one
  uint64_t max_file_size = 0, max_memory = 0;        // bytes; 0: no limit
  std::string out_path{};                            // stdout goes there instead
  bool broken_pipe = false;                          // stdout is a pipe that nobody reads
  bool terminal = false;                             // stderr is a terminal of 80 columns
};

// A program at work in a folder, which is also its HOME and cache: it sees no data but what is put there.
class Program {
 public:
  Program(const TempDir& folder, const std::vector<std::string>& arguments, const ProgramOptions& options = {});
  ~Program();  // ends it
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  void signal(int number) const;
  Outcome wait();

 private:
  std::string log_;    // path of stdout and stderr, without the extension
  int terminal_ = -1;  // our end of it
  pid_t pid_;
  bool running_ = true;
};

// Are there pseudo-terminals here? If not, after a line "SKIPPED: why"; the test then returns.
bool have_terminals();

// Runs it to its end.
Outcome tandem_program(const TempDir& folder, const std::vector<std::string>& arguments,
                       const ProgramOptions& options = {});

std::string read_text(const std::string& path);
bool exists(const std::string& path);
std::vector<std::string> files_in(const std::string& folder);  // sorted; empty if there is no such folder

// Four files in the format of MNIST, of built-in digits, in `folder`.
void write_small_mnist(const std::string& folder, int64_t train, int64_t test);

}  // namespace tandem::test
