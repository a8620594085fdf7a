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

std::string folder_of(const std::string& path) {
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash + 1);
}

}  // namespace

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
  size_t read(uint64_t at, void* data, size_t size) const {
    ssize_t n;
    while ((n = ::pread(fd_, data, size, static_cast<off_t>(at))) < 0 && errno == EINTR) {
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

InputFile::InputFile(const std::string& path)
    // O_NONBLOCK: opening a pipe must not wait for its writer; it is refused just below.
    : path_(path), file_(std::make_shared<const File>("read", path_, path_, O_RDONLY | O_NONBLOCK)) {
  const struct stat status = file_->status();
  if (S_ISDIR(status.st_mode)) fail("read", path, EISDIR);
  if (!S_ISREG(status.st_mode)) throw IoError(fmt::format("cannot read {}: it is not a regular file", path));
  size_ = static_cast<uint64_t>(status.st_size);
}

void InputFile::read(uint64_t at, void* data, size_t size) const {
  for (size_t got = 0; got < size;) {
    const size_t n = file_->read(at + got, static_cast<uint8_t*>(data) + got, size - got);
    if (n == 0) throw IoError(fmt::format("cannot read {}: it ended at byte {} of {}", path_, at + got, size_));
    got += n;
  }
}

std::vector<uint8_t> read_file(const std::string& path) {
  const InputFile file(path);
  std::vector<uint8_t> bytes(file.size());
  file.read(0, bytes.data(), bytes.size());
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
  const std::string part = fmt::format("{}.part-{}", path, ::gettid());  // one per thread of all processes
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
  try {
    File("write", path, folder_of(path), O_RDONLY | O_DIRECTORY).sync();  // makes the rename itself durable
  } catch (const IoError&) {  // the file is replaced all the same; the folder may be one that nobody may list
  }
}

}  // namespace tandem
