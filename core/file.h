// Whole files: read at once, or replaced atomically.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

// The file's bytes. Throws IoError naming the path and the system's reason.
std::vector<uint8_t> read_file(const std::string& path);

// Replaces `path` whole or not at all: writes `path`.part-PID, fsyncs, renames. Throws IoError and removes
// the temporary file when anything fails (full disk, no permission).
void write_file(const std::string& path, std::string_view bytes);

}  // namespace tandem
