// safetensors files: named tensors and string metadata, nothing else; no code, no paths.
// Format: u64 header length, JSON header, tensor bytes (little-endian, row-major).
#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tandem/core/tensor.h"

namespace tandem {

struct SafeTensors {
  std::vector<std::pair<std::string, Tensor>> tensors;  // in file order
  std::map<std::string, std::string> metadata;
};

// Writes `path` whole or not at all: a temporary file beside it, fsync, rename. The bytes are a function of
// the arguments. Throws IoError (naming the path and the system's reason) or ValueError for a duplicate name
// and for names or metadata that are not UTF-8.
void write_safetensors(const std::string& path, const SafeTensors& content);

// Reads and checks all of it: header length, JSON, dtypes, shapes, offsets in order without holes or overlap,
// the file's exact size; no tensor is allocated before all that was checked. Throws ModelFileError, also when the file
// cannot be read, and OutOfMemory.
SafeTensors read_safetensors(const std::string& path);

}  // namespace tandem
