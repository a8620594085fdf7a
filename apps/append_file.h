// A log: records are added at the end and are on their way to the disk when append() returns.
#pragma once

#include <string>
#include <string_view>

namespace tandem {

class AppendFile {
 public:
  explicit AppendFile(const std::string& path);  // a new, empty file; throws IoError
  ~AppendFile();
  AppendFile(const AppendFile&) = delete;
  AppendFile& operator=(const AppendFile&) = delete;

  // All of `record` or nothing of it. Throws IoError naming the path and the system's reason.
  void append(std::string_view record);

 private:
  std::string path_;
  int file_;
  long size_ = 0;  // whole records
};

}  // namespace tandem
