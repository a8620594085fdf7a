#include "tandem/data/mnist.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"
#include "tandem/core/file.h"

namespace tandem::test {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<uint8_t>;

void write(const std::string& path, const Bytes& bytes) {
  fs::create_directories(fs::path(path).parent_path());
  write_file(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

// An IDX file, every element `value`.
Bytes idx(const std::vector<uint32_t>& extents, uint8_t value) {
  Bytes bytes = idx_header(extents);
  size_t elements = 1;
  for (uint32_t extent : extents) elements *= extent;
  bytes.resize(bytes.size() + elements, value);
  return bytes;
}

// The four files with 3 training and 2 test images, all pixels 7 and all labels 4.
void write_small_mnist(const std::string& dir, bool dotted = false) {
  for (int file = 0; file < 4; ++file) {
    std::string name = kMnistFiles[file];
    if (dotted) name[name.find("-idx")] = '.';
    const uint32_t n = file < 2 ? 3 : 2;
    write(dir + "/" + name, file % 2 ? idx({n}, 4) : idx({n, 28, 28}, 7));
  }
}

// Sets an environment variable (null: unsets it) until the end of its scope.
class Environment {
 public:
  Environment(const char* name, const char* value) : name_(name) {
    if (const char* old = std::getenv(name)) old_ = old;
    value ? setenv(name, value, 1) : unsetenv(name);
  }
  ~Environment() { old_ ? setenv(name_, old_->c_str(), 1) : unsetenv(name_); }

 private:
  const char* name_;
  std::optional<std::string> old_;
};

}  // namespace

TEST_CASE("MNIST is loaded with its shapes, labels and name") {
  const TempDir dir;
  const bool dotted = GENERATE(false, true);
  write_small_mnist(dir.path(), dotted);
  const Dataset train = load_mnist(dir.path(), Split::train), test = load_mnist(dir.path(), Split::test, "fashion-mnist");
  CHECK(train.name == "mnist");
  CHECK(test.name == "fashion-mnist");
  CHECK(train.x.shape() == Shape{3, 28, 28, 1});
  CHECK(train.x.dtype() == Dtype::uint8);
  CHECK(train.x.data<uint8_t>()[3 * 784 - 1] == 7);
  CHECK(train.y.to_vector<int32_t>() == std::vector<int32_t>{4, 4, 4});
  CHECK(train.classes == 10);
  CHECK(train.size() == 3);
  CHECK(test.size() == 2);
}

TEST_CASE("MNIST is looked for in --data, then TANDEM_DATA, then the cache") {
  const TempDir dir;
  const std::string data = dir.file("data"), cache = dir.file("cache"), home = dir.file("home");
  const Environment tandem_data("TANDEM_DATA", data.c_str()), xdg("XDG_CACHE_HOME", cache.c_str()),
      home_variable("HOME", home.c_str());
  CHECK(mnist_cache_dir("mnist") == cache + "/tandem/mnist");
  CHECK(find_mnist("mnist") == std::nullopt);
  write_small_mnist(cache + "/tandem/mnist");
  CHECK(find_mnist("mnist") == cache + "/tandem/mnist");
  CHECK(find_mnist("fashion-mnist") == std::nullopt);
  write_small_mnist(data);
  CHECK(find_mnist("mnist") == data);
  write_small_mnist(data + "/mnist");  // one folder per name goes before the folder itself
  CHECK(find_mnist("mnist") == data + "/mnist");
  write_small_mnist(dir.file("given/fashion-mnist"));
  CHECK(find_mnist("fashion-mnist", dir.file("given")) == dir.file("given/fashion-mnist"));
  CHECK(load_mnist("", Split::train).size() == 3);
  {
    const Environment relative("XDG_CACHE_HOME", "cache");
    CHECK(mnist_cache_dir("mnist") == home + "/.cache/tandem/mnist");
    const Environment nowhere("HOME", nullptr);
    CHECK(mnist_cache_dir("mnist").empty());
  }
}

TEST_CASE("What is missing of MNIST is named, with the places and the way out") {
  const TempDir dir;
  const std::string given = dir.file("given"), cache = dir.file("cache");
  const Environment tandem_data("TANDEM_DATA", nullptr), xdg("XDG_CACHE_HOME", cache.c_str());
  const std::string files =
      "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (raw or .gz)";
  const std::string way_out =
      "; get them with `tandem data fetch mnist`, or name their folder with --data or TANDEM_DATA";
  const std::string expected = "mnist: expected the files " + files + ", found them in none of ";
  CHECK(error_of([&] { find_mnist("mnist", given); }) == expected + given + "/mnist, " + given + way_out);
  CHECK(error_of([&] { load_mnist("", Split::train); }) == expected + cache + "/tandem/mnist" + way_out);
  CHECK_THROWS_AS(load_mnist(given, Split::train), DataError);
  write_small_mnist(given);
  fs::remove(given + "/t10k-labels-idx1-ubyte");
  CHECK(error_of([&] { load_mnist(given, Split::train); }) ==
        expected + given + "/mnist, " + given + "; " + given + " lacks t10k-labels-idx1-ubyte" + way_out);
  CHECK(error_of([&] { verify_mnist("mnist", dir.file("no")); }) ==
        expected + dir.file("no") + "/mnist, " + dir.file("no") + way_out);
  CHECK(error_of([&] { find_mnist("cifar", given); }) == "data set: expected mnist or fashion-mnist, got 'cifar'");
}

TEST_CASE("Files that do not fit together are refused") {
  const TempDir dir;
  write_small_mnist(dir.path());
  const std::string images = dir.file("train-images-idx3-ubyte"), labels = dir.file("train-labels-idx1-ubyte");
  const auto error = [&] { return error_of([&] { load_mnist(dir.path(), Split::train); }); };
  write(labels, idx({4}, 1));
  CHECK(error() == "mnist: expected as many labels as images, got 4 in " + labels + " and 3 in " + images);
  Bytes eleven = idx({3}, 1);
  eleven.back() = 10;
  write(labels, eleven);
  CHECK(error() == "mnist: " + labels + ": expected labels of 0 to 9, got 10 at 2");
  write(labels, idx({3}, 1));
  write(images, idx({3, 28, 27}, 1));
  CHECK(error() == "mnist: " + images + ": expected images of 28x28, got 28x27");
  write(images, idx({3}, 1));
  CHECK(error() == "read_idx: " + images + ": expected 3 axes, got 1");
  CHECK_THROWS_AS(load_mnist(dir.path(), Split::train), DataError);
}

TEST_CASE("A file with another checksum is refused") {
  const TempDir dir;
  write_small_mnist(dir.path());
  const std::string labels = dir.file("train-labels-idx1-ubyte");
  CHECK(error_of([&] { verify_mnist("mnist", dir.path()); }) ==
        "verify: " + labels + ": expected SHA-256 65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5 of "
        "the content, got cc833f99aed78a41bb179952c6fbc4492da3f5d31645bd84aaaf7bdc6f95bae6; get it with `tandem data "
        "fetch mnist`");
  const Bytes images = idx({3, 28, 28}, 7);
  CHECK(error_of([&] { verify_mnist_file("fashion-mnist", 0, images, "f"); }) ==
        "verify: f: expected a .gz file, since fashion-mnist publishes no checksum of the raw one; get it with "
        "`tandem data fetch fashion-mnist`");
  CHECK_THROWS_AS(verify_mnist("fashion-mnist", dir.path()), DataError);
}

TEST_CASE("Real MNIST verifies, raw or compressed, and is not taken for Fashion-MNIST", "[mnist]") {
  const auto dir = require_mnist();
  if (!dir) return;
  const std::string lines = verify_mnist("mnist", *dir);
  CHECK(std::count(lines.begin(), lines.end(), '\n') == 4);
  CHECK(lines.find("ok (SHA-256 of the content ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db)") !=
        std::string::npos);

  const Dataset train = load_mnist(*dir, Split::train), test = load_mnist(*dir, Split::test);
  CHECK(train.size() == 60000);
  CHECK(test.size() == 10000);
  const std::vector<int32_t> labels = test.y.to_vector<int32_t>();
  CHECK(std::vector<int32_t>(labels.begin(), labels.begin() + 5) == std::vector<int32_t>{7, 2, 1, 0, 4});
  Bytes raw = {0, 0, 8, 1, 0, 0, 0x27, 0x10};
  raw.insert(raw.end(), labels.begin(), labels.end());
  CHECK(verify_mnist_file("mnist", 3, raw, "f").rfind("f: ok (SHA-256", 0) == 0);
  raw.back() ^= 1;
  CHECK_THROWS_AS(verify_mnist_file("mnist", 3, raw, "f"), DataError);

  const std::string path = *find_mnist_file(*dir, 1);
  CHECK(error_of([&] { verify_mnist("fashion-mnist", *dir); }) ==
        "verify: " + path + ": expected train-labels-idx1-ubyte of fashion-mnist, got that of mnist; get it with "
        "`tandem data fetch fashion-mnist`");
  CHECK(error_of([&] { load_mnist(*dir, Split::test, "fashion-mnist"); }) ==
        "fashion-mnist: " + *dir + " holds mnist; name the folder of fashion-mnist with --data or TANDEM_DATA");
}

}  // namespace tandem::test
