// MNIST and Fashion-MNIST: where they are looked for, how they are loaded and checked. Nothing here downloads.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "tandem/data/dataset.h"

namespace tandem {

enum class Split { train, test };

// `name` is "mnist" or "fashion-mnist" throughout; anything else is a ValueError.

// The four files of either, as published (there with ".gz").
inline constexpr std::array<const char*, 4> kMnistFiles = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                                                           "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"};
// Where file 0..3 lies in `dir`: raw or .gz, spelled -idx3- or .idx3-. Empty if it does not.
std::optional<std::string> find_mnist_file(const std::string& dir, int file);

// The folder that holds the four files of `name`: `dir`/`name` or `dir` if given; else $TANDEM_DATA likewise;
// else the cache. Empty if the files are in none. Throws DataError if `dir` is given and lacks them.
std::optional<std::string> find_mnist(const std::string& name, const std::string& dir = "");
// ${XDG_CACHE_HOME:-~/.cache}/tandem/<name>; empty if neither XDG_CACHE_HOME nor HOME is set.
std::string mnist_cache_dir(const std::string& name);

// x[N, 28, 28, 1] uint8, y in 0..9; name is `name`. An empty `dir` means wherever find_mnist finds it. Throws
// DataError: missing files (which, looked for where, and the command that fetches them), counts that differ,
// images not 28x28, a label above 9, the labels of the other data set.
Dataset load_mnist(const std::string& dir, Split split, const std::string& name = "mnist");

// Compares the files with the published checksums: SHA-256 of the content for MNIST, MD5 of the .gz files for
// Fashion-MNIST. Throws DataError naming the file, and the other data set if it is that one. Returns one line
// per file.
std::string verify_mnist(const std::string& name, const std::string& dir);
// The same for the bytes of one file, raw or gzip; `path` is for errors. Returns its line.
std::string verify_mnist_file(const std::string& name, int file, std::span<const uint8_t> bytes,
                              const std::string& path);

}  // namespace tandem
