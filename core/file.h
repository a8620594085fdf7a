// Files: read whole or piece by piece, replaced atomically.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

class File;

// A regular file, read piece by piece. Throws IoError naming the path and the system's reason.
class InputFile {
 public:
  explicit InputFile(const std::string& path);
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  uint64_t size() const { return size_; }  // when it was opened
  // Bytes [at, at + size), all of them.
  void read(uint64_t at, void* data, size_t size) const;

 private:
  std::string path_;
  std::shared_ptr<const File> file_;
  uint64_t size_;
};

// The file's bytes, with the same errors.
std::vector<uint8_t> read_file(const std::string& path);

// Replaces `path` whole or not at all: writes `path`.part-TID (of this thread), fsyncs, renames. Throws IoError and
// removes the temporary file when anything fails (full disk, no permission).
void write_file(const std::string& path, std::string_view bytes);

}  // namespace tandem
