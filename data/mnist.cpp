#include "tandem/data/mnist.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <vector>

#include "tandem/core/error.h"
#include "tandem/core/file.h"
#include "tandem/core/hash.h"
#include "tandem/data/idx.h"

namespace tandem {
namespace {

// Published sums, file by file; "" where none is. MNIST is published in many compressions of the same
// content. Fashion-MNIST publishes MD5 of its .gz; the sums of its labels are of files with that MD5.
struct Sums {
  const char* name;
  const char* content_sha256[4];
  const char* gzip_md5[4];
};
constexpr Sums kSums[2] = {{"mnist",
                            {"ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
                             "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
                             "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
                             "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"},
                            {"f68b3c2dcbeaaa9fbdd348bbdeb94873", "d53e105ee54ea40749a09fcbcd1e9432",
                             "9fb629c4189551a2d022fa330f9573f3", "ec29112dd5afa0611ce80d1b7f02629c"}},
                           {"fashion-mnist",
                            {"", "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9", "",
                             "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"},
                            {"8d4fb7e6c68d591d4c3dfef9ec88bf0d", "25c81989df183df01b3e8a0aad5dffbe",
                             "bef4ecab320f06d8554ea6380940ec79", "bb300cfdad3c16e7a12a480ee83cd310"}}};

const Sums& sums_of(const std::string& name) {
  for (const Sums& sums : kSums) {
    if (sums.name == name) return sums;
  }
  throw ValueError(fmt::format("data set: expected mnist or fashion-mnist, got '{}'", name));
}
const Sums& other(const Sums& sums) { return &sums == kSums ? kSums[1] : kSums[0]; }

// The folders to look in, best first.
std::vector<std::string> places(const std::string& name, const std::string& dir) {
  const auto in = [&](const std::string& root) { return std::vector<std::string>{root + "/" + name, root}; };
  if (!dir.empty()) return in(dir);
  std::vector<std::string> folders;
  if (const char* root = std::getenv("TANDEM_DATA"); root && *root) folders = in(root);
  if (const std::string cache = mnist_cache_dir(name); !cache.empty()) folders.push_back(cache);
  return folders;
}

std::vector<std::string> missing_files(const std::string& dir) {
  std::vector<std::string> missing;
  for (int file = 0; file < 4; ++file) {
    if (!find_mnist_file(dir, file)) missing.push_back(kMnistFiles[file]);
  }
  return missing;
}

// Says which files are missing where: all four, or those that the fullest folder lacks.
[[noreturn]] void fail_missing(const std::string& name, const std::vector<std::string>& folders) {
  std::string lacking;
  for (const std::string& folder : folders) {
    const auto missing = missing_files(folder);
    if (missing.size() < 4 && lacking.empty()) lacking = fmt::format("; {} lacks {}", folder, fmt::join(missing, ", "));
  }
  throw DataError(
      fmt::format("{0}: expected the files {1} (raw or .gz), found them in none of {2}{3}; "
                  "get them with `tandem data fetch {0}`, or name their folder with --data or TANDEM_DATA",
                  name, fmt::join(kMnistFiles, ", "),
                  folders.empty() ? "(no folder known)" : fmt::format("{}", fmt::join(folders, ", ")), lacking));
}

// The IDX file that a strictly read uint8 tensor came from.
std::vector<uint8_t> idx_bytes(const Tensor& x) {
  std::vector<uint8_t> bytes = {0, 0, 8, static_cast<uint8_t>(x.rank())};
  for (int64_t extent : x.shape()) {
    for (int shift = 24; shift >= 0; shift -= 8) bytes.push_back(static_cast<uint8_t>(extent >> shift));
  }
  bytes.insert(bytes.end(), x.data<uint8_t>(), x.data<uint8_t>() + x.numel());
  return bytes;
}
std::string content_sha256(const Tensor& x) {
  const std::vector<uint8_t> bytes = idx_bytes(x);
  return sha256(bytes.data(), bytes.size());
}

}  // namespace

std::optional<std::string> find_mnist_file(const std::string& dir, int file) {
  const std::string name = kMnistFiles[file];
  std::string dotted = name;
  dotted[name.find("-idx")] = '.';
  for (const std::string& candidate : {name, dotted, name + ".gz", dotted + ".gz"}) {
    const std::string path = dir + "/" + candidate;
    std::error_code error;  // a folder we may not enter holds nothing for us
    if (std::filesystem::is_regular_file(path, error)) return path;
  }
  return {};
}

std::string mnist_cache_dir(const std::string& name) {
  sums_of(name);
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache && *cache == '/') return fmt::format("{}/tandem/{}", cache, name);  // the standard ignores others
  const char* home = std::getenv("HOME");
  return home && *home ? fmt::format("{}/.cache/tandem/{}", home, name) : "";
}

std::optional<std::string> find_mnist(const std::string& name, const std::string& dir) {
  sums_of(name);
  const std::vector<std::string> folders = places(name, dir);
  for (const std::string& folder : folders) {
    if (missing_files(folder).empty()) return folder;
  }
  if (!dir.empty()) fail_missing(name, folders);
  return {};
}

Dataset load_mnist(const std::string& dir, Split split, const std::string& name) {
  const auto folder = find_mnist(name, dir);
  if (!folder) fail_missing(name, places(name, dir));
  const int first = split == Split::train ? 0 : 2;
  const std::string images_path = *find_mnist_file(*folder, first), labels_path = *find_mnist_file(*folder, first + 1);
  const Tensor images = read_idx(images_path, 3), labels = read_idx(labels_path, 1);
  const int64_t n = images.dim(0);
  if (images.dim(1) != 28 || images.dim(2) != 28) {
    throw DataError(
        fmt::format("{}: {}: expected images of 28x28, got {}x{}", name, images_path, images.dim(1), images.dim(2)));
  }
  if (labels.dim(0) != n) {
    throw DataError(fmt::format("{}: expected as many labels as images, got {} in {} and {} in {}", name, labels.dim(0),
                                labels_path, n, images_path));
  }
  const uint8_t* label = labels.data<uint8_t>();
  for (int64_t i = 0; i < n; ++i) {
    if (label[i] > 9) {
      throw DataError(fmt::format("{}: {}: expected labels of 0 to 9, got {} at {}", name, labels_path, label[i], i));
    }
  }
  const Sums& stranger = other(sums_of(name));
  if (content_sha256(labels) == stranger.content_sha256[first + 1]) {
    throw DataError(fmt::format("{}: {} holds {}; name the folder of {} with --data or TANDEM_DATA", name, *folder,
                                stranger.name, name));
  }
  return {name, images.reshape({n, 28, 28, 1}), labels.to(Dtype::int32), 10, 0, n};
}

std::string verify_mnist_file(const std::string& name, int file, std::span<const uint8_t> bytes,
                              const std::string& path) {
  const Sums &sums = sums_of(name), &stranger = other(sums);
  const bool gzip = bytes.size() > 1 && bytes[0] == 0x1f && bytes[1] == 0x8b;
  const std::string content = content_sha256(parse_idx(bytes.data(), bytes.size(), path, file % 2 ? 1 : 3));
  const std::string compressed = gzip ? md5(bytes.data(), bytes.size()) : "";
  const auto is = [&](const Sums& of) {
    return content == of.content_sha256[file] || (gzip && compressed == of.gzip_md5[file]);
  };
  if (is(sums)) {
    return content == sums.content_sha256[file] ? fmt::format("{}: ok (SHA-256 of the content {})", path, content)
                                                : fmt::format("{}: ok (MD5 {})", path, compressed);
  }
  const std::string way_out = fmt::format("get it with `tandem data fetch {}`", name);
  if (is(stranger)) {
    throw DataError(fmt::format("verify: {}: expected {} of {}, got that of {}; {}", path, kMnistFiles[file], name,
                                stranger.name, way_out));
  }
  if (*sums.content_sha256[file]) {
    throw DataError(fmt::format("verify: {}: expected SHA-256 {} of the content, got {}; {}", path,
                                sums.content_sha256[file], content, way_out));
  }
  if (gzip) {
    throw DataError(
        fmt::format("verify: {}: expected MD5 {}, got {}; {}", path, sums.gzip_md5[file], compressed, way_out));
  }
  throw DataError(fmt::format("verify: {}: expected a .gz file, since {} publishes no checksum of the raw one; {}",
                              path, name, way_out));
}

std::string verify_mnist(const std::string& name, const std::string& dir) {
  const auto folder = find_mnist(name, dir);
  if (!folder) fail_missing(name, places(name, dir));
  std::string lines;
  for (int file : {1, 3, 0, 2}) {  // labels first: they tell the two data sets apart, raw or not
    const std::string path = *find_mnist_file(*folder, file);
    lines += verify_mnist_file(name, file, read_file(path), path) + "\n";
  }
  return lines;
}

}  // namespace tandem
