// MNIST and Fashion-MNIST: where they are looked for, how they are loaded, checked and fetched.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "tandem/data/dataset.h"

namespace tandem {

enum class Split { train, test };

// The folder that holds the four files of `name` ("mnist" or "fashion-mnist"): `dir` or `dir`/`name` if given;
// else $TANDEM_DATA likewise; else ${XDG_CACHE_HOME:-~/.cache}/tandem/<name>. Empty if the files are in none.
// Both spellings (-idx3-, .idx3-) are known, raw or .gz. Throws DataError if `dir` is given and lacks them.
std::optional<std::string> find_mnist(const std::string& name, const std::string& dir = "");
std::string mnist_cache_dir(const std::string& name);

// x[N, 28, 28, 1] uint8, y in 0..9; name is `name`. Throws DataError: missing files (which, looked for where,
// and the command that fetches them), counts that differ, images not 28x28, a label above 9.
Dataset load_mnist(const std::string& dir, Split split, const std::string& name = "mnist");

// Compares the files with the published checksums (SHA-256 of MNIST's raw files, MD5 of Fashion-MNIST's .gz).
// Throws DataError naming the file, and the other data set if it is that one. Returns one line per file.
std::string verify_mnist(const std::string& name, const std::string& dir);

}  // namespace tandem
