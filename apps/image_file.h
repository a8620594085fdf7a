// Images from files, for predict.
#pragma once

#include <string>

#include "tandem/core/tensor.h"

namespace tandem {

// The images of an IDX file (raw or .gz), or the one of a PGM or PNG file; the content says which. uint8
// [N, height, width, 1], 0 is black; colours become grey, transparency black. Throws DataError naming the file
// and the fault: it cannot be read, is none of these, is damaged, or is larger than 4096 x 4096.
Tensor read_images(const std::string& path);

}  // namespace tandem
