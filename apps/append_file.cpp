#include "append_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

#include "tandem/core/error.h"

namespace tandem {

namespace {
[[noreturn]] void fail(const std::string& path, int error) {
  throw IoError(fmt::format("cannot write {}: {}", path, std::generic_category().message(error)));
}
}  // namespace

AppendFile::AppendFile(const std::string& path)
    : path_(path), file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0666)) {
  if (file_ < 0) fail(path_, errno);
}

AppendFile::~AppendFile() { ::close(file_); }

void AppendFile::append(std::string_view record) {
  for (std::string_view rest = record; !rest.empty();) {
    const ssize_t n = ::write(file_, rest.data(), rest.size());
    if (n >= 0) {
      rest.remove_prefix(static_cast<size_t>(n));
    } else if (errno != EINTR) {
      const int error = errno;
      // A half record would spoil the file for its readers; if even this fails, the first error tells more.
      if (::ftruncate(file_, size_) != 0) errno = error;
      fail(path_, error);
    }
  }
  size_ += static_cast<long>(record.size());
}

}  // namespace tandem
