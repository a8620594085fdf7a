// The IDX format of MNIST, read strictly: anything odd is an error of its own.
#pragma once

#include <string>

#include "tandem/core/tensor.h"

namespace tandem {

// A file of uint8, raw or gzip (by content): rank from its magic number, e.g. [60000, 28, 28] or [60000].
// Throws DataError naming the file and the fault: cannot be opened, bad magic, wrong element type, wrong
// rank, an extent of 0, header or data cut short, trailing bytes, damaged gzip. Nothing is allocated before
// the file's size was compared with what its header promises.
Tensor read_idx(const std::string& path, int rank);

// The same from memory; `name` stands for the path in errors.
Tensor parse_idx(const uint8_t* bytes, size_t size, const std::string& name, int rank);

}  // namespace tandem
