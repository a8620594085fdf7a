// Whole files: read at once, replaced atomically, and what happens when the disk says no.
#include "tandem/core/file.h"

#include <signal.h>
#include <sys/fsuid.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <thread>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"

using namespace tandem;
using namespace tandem::test;

namespace {

std::string text_of(const std::string& path) {
  const std::vector<uint8_t> raw = read_file(path);
  return std::string(raw.begin(), raw.end());
}

size_t files_in(const std::string& folder) {
  size_t n = 0;
  for ([[maybe_unused]] const auto& file : std::filesystem::directory_iterator(folder)) ++n;
  return n;
}

// While alive, this process may write files of at most `bytes` bytes: what a full disk looks like.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    signal_before_ = signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &before_);
    signal(SIGXFSZ, signal_before_);
  }

 private:
  rlimit before_;
  void (*signal_before_)(int);
};

}  // namespace

TEST_CASE("A file comes back as it was written, and is replaced whole") {
  const TempDir dir;
  const std::string path = dir.file("x"), binary("\0\n\xff\0", 4);
  write_file(path, binary);
  CHECK(text_of(path) == binary);
  write_file(path, "");
  CHECK(text_of(path).empty());
  write_file(path, std::string(1'000'000, 'x'));
  CHECK(text_of(path) == std::string(1'000'000, 'x'));
  CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("A file can be written by a name without a folder") {
  const TempDir dir;
  const std::filesystem::path before = std::filesystem::current_path();
  std::filesystem::current_path(dir.path());
  write_file("plain", "text");
  std::filesystem::current_path(before);
  CHECK(text_of(dir.file("plain")) == "text");
}

TEST_CASE("A file that cannot be read is named, with the reason") {
  const TempDir dir;
  CHECK(error_of([&] { read_file(dir.file("none")); }) ==
        "cannot read " + dir.file("none") + ": No such file or directory");
  CHECK(error_of([&] { read_file(dir.path()); }) == "cannot read " + dir.path() + ": Is a directory");
  REQUIRE(mkfifo(dir.file("pipe").c_str(), 0600) == 0);
  CHECK(error_of([&] { read_file(dir.file("pipe")); }) ==
        "cannot read " + dir.file("pipe") + ": it is not a regular file");
  CHECK(error_of([] { read_file("/dev/zero"); }) == "cannot read /dev/zero: it is not a regular file");
  CHECK_THROWS_AS(read_file(dir.path()), IoError);
}

TEST_CASE("A file that cannot be written is named, with the reason, and leaves nothing behind") {
  const TempDir dir;
  const std::string missing = dir.file("none") + "/x";
  CHECK(error_of([&] { write_file(missing, "x"); }) == "cannot write " + missing + ": No such file or directory");
  write_file(dir.file("file"), "kept");
  const std::string below = dir.file("file") + "/x";
  CHECK(error_of([&] { write_file(below, "x"); }) == "cannot write " + below + ": Not a directory");
  CHECK(error_of([&] { write_file(dir.path(), "x"); }) == "cannot write " + dir.path() + ": Is a directory");
  CHECK_THROWS_AS(write_file(missing, "x"), IoError);
  CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("Writing to a device refuses and leaves the device alone") {
  const TempDir dir;
  CHECK(error_of([] { write_file("/dev/full", "x"); }) == "cannot write /dev/full: it is not a regular file");
  struct stat status;
  REQUIRE(stat("/dev/full", &status) == 0);
  CHECK(S_ISCHR(status.st_mode));
}

TEST_CASE("A full disk keeps the old file and removes the new one") {
  const TempDir dir;
  const std::string path = dir.file("model");
  write_file(path, "old");
  {
    const FileSizeLimit limit(1000);
    CHECK(error_of([&] { write_file(path, std::string(100'000, 'n')); }) ==
          "cannot write " + path + ": File too large");
  }
  CHECK(text_of(path) == "old");
  CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("A left-over of a process that was killed is overwritten") {
  const TempDir dir;
  const std::string path = dir.file("model");
  std::filesystem::copy_file("/proc/self/status", path + ".part-" + std::to_string(getpid()));
  write_file(path, "new");
  CHECK(text_of(path) == "new");
  CHECK(files_in(dir.path()) == 1);
}

TEST_CASE("A folder that may be written but not listed takes files") {
  const TempDir dir;
  std::filesystem::permissions(dir.path(), std::filesystem::perms(0333));
  const int before = setfsuid(65534);  // root may list every folder: be somebody else in this thread
  write_file(dir.file("x"), "text");
  setfsuid(static_cast<uid_t>(before));
  std::filesystem::permissions(dir.path(), std::filesystem::perms(0755));
  CHECK(text_of(dir.file("x")) == "text");
}

TEST_CASE("Threads that write one file leave one of their texts, whole") {
  const TempDir dir;
  const std::string path = dir.file("model");
  std::atomic<int> failures = 0;
  std::vector<std::thread> writers;
  for (const char letter : {'a', 'b'}) {
    writers.emplace_back([&, letter] {
      for (int i = 0; i < 50; ++i) {
        try {
          write_file(path, std::string(10'000, letter));
        } catch (const IoError&) {
          ++failures;
        }
      }
    });
  }
  for (std::thread& writer : writers) writer.join();
  CHECK(failures == 0);
  const std::string text = text_of(path);
  CHECK((text == std::string(10'000, 'a') || text == std::string(10'000, 'b')));
  CHECK(files_in(dir.path()) == 1);
}
