#include "tandem/core/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "tandem/core/error.h"

namespace tandem {

namespace {

[[noreturn]] void fail(const char* verb, const std::string& path, int error) {
  throw IoError(fmt::format("cannot {} {}: {}", verb, path, std::generic_category().message(error)));
}

// A file descriptor that closes itself.
class File {
 public:
  File(const char* verb, const std::string& path, const std::string& opened, int flags)
      : verb_(verb), path_(path), fd_(::open(opened.c_str(), flags | O_CLOEXEC, 0666)) {
    if (fd_ < 0) fail(verb_, path_, errno);
  }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }

  struct stat status() const {
    struct stat s;
    if (::fstat(fd_, &s) != 0) fail(verb_, path_, errno);
    return s;
  }
  size_t read(void* data, size_t size) const {
    ssize_t n;
    while ((n = ::read(fd_, data, size)) < 0 && errno == EINTR) {
    }
    if (n < 0) fail(verb_, path_, errno);
    return static_cast<size_t>(n);
  }
  void write(std::string_view bytes) const {
    while (!bytes.empty()) {
      const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
      if (n < 0 && errno != EINTR) fail(verb_, path_, errno);
      if (n > 0) bytes.remove_prefix(static_cast<size_t>(n));
    }
  }
  void sync() const {
    // Some file systems cannot sync a folder and say EINVAL: then there is nothing to wait for.
    if (::fsync(fd_) != 0 && errno != EINVAL) fail(verb_, path_, errno);
  }
  void close() {
    const int fd = fd_;
    fd_ = -1;
    if (::close(fd) != 0) fail(verb_, path_, errno);
  }

 private:
  const char* verb_;
  const std::string& path_;
  int fd_;
};

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

}  // namespace

std::vector<uint8_t> read_file(const std::string& path) {
  // O_NONBLOCK: opening a pipe must not wait for its writer; it is refused just below.
  const File file("read", path, path, O_RDONLY | O_NONBLOCK);
  const struct stat status = file.status();
  if (S_ISDIR(status.st_mode)) fail("read", path, EISDIR);
  if (!S_ISREG(status.st_mode)) throw IoError(fmt::format("cannot read {}: it is not a regular file", path));
  std::vector<uint8_t> bytes(static_cast<size_t>(status.st_size));
  size_t got = 0;
  while (got < bytes.size()) {
    const size_t n = file.read(bytes.data() + got, bytes.size() - got);
    if (n == 0) {
      throw IoError(fmt::format("cannot read {}: it ended at byte {} of {}", path, got, bytes.size()));
    }
    got += n;
  }
  return bytes;
}

void write_file(const std::string& path, std::string_view bytes) {
  // A rename would replace a device or a pipe by a file, and a folder not at all.
  struct stat existing;
  if (::stat(path.c_str(), &existing) == 0) {
    if (S_ISDIR(existing.st_mode)) fail("write", path, EISDIR);
    if (!S_ISREG(existing.st_mode)) {
      throw IoError(fmt::format("cannot write {}: it is not a regular file", path));
    }
  }
  const std::string part = fmt::format("{}.part-{}", path, ::getpid());
  File file("write", path, part, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW);
  try {
    file.write(bytes);
    file.sync();
    file.close();
    if (::rename(part.c_str(), path.c_str()) != 0) fail("write", path, errno);
  } catch (...) {
    ::unlink(part.c_str());
    throw;
  }
  const std::string folder = folder_of(path);
  File("write", path, folder, O_RDONLY | O_DIRECTORY).sync();  // makes the rename itself durable
}

}  // namespace tandem
