#include "tandem/data/idx.h"

#include <sys/stat.h>
#include <zlib.h>

#include <fstream>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"
#include "tandem/core/storage.h"

namespace tandem::test {
namespace {

using Bytes = std::vector<uint8_t>;

// Elements 0, 1, 2, ...
Bytes idx(const std::vector<uint32_t>& extents) {
  Bytes bytes = idx_header(extents);
  size_t elements = 1;
  for (uint32_t extent : extents) elements *= extent;
  for (size_t i = 0; i < elements; ++i) bytes.push_back(static_cast<uint8_t>(i));
  return bytes;
}

Bytes gzip(const Bytes& content) {
  z_stream stream = {};
  REQUIRE(deflateInit2(&stream, 9, Z_DEFLATED, 15 + 16, 9, Z_DEFAULT_STRATEGY) == Z_OK);
  Bytes out(deflateBound(&stream, content.size()) + 32);
  stream.next_in = const_cast<uint8_t*>(content.data());
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  REQUIRE(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

Bytes cut(Bytes bytes, size_t size) {
  bytes.resize(size);
  return bytes;
}

// The message for a file named "f" with these bytes, once from memory and once from disk: both the same, and
// without having asked for memory.
std::string fault(const Bytes& bytes, int rank) {
  const auto before = memory_stats();
  const std::string message = error_of([&] { parse_idx(bytes.data(), bytes.size(), "f", rank); });
  const TempDir dir;
  const std::string path = dir.file("f");
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  std::string from_disk = error_of([&] { read_idx(path, rank); });
  const size_t at = from_disk.find(path);
  REQUIRE(at != std::string::npos);
  CHECK(from_disk.replace(at, path.size(), "f") == message);
  CHECK_THROWS_AS(read_idx(path, rank), DataError);
  CHECK(memory_stats().bytes_in_use == before.bytes_in_use);
  return message;
}

}  // namespace

TEST_CASE("IDX files are read raw and gzipped") {
  const Bytes content = idx({3, 4, 5});
  for (const Bytes& bytes : {content, gzip(content)}) {
    const Tensor x = parse_idx(bytes.data(), bytes.size(), "f", 3);
    CHECK(x.shape() == Shape{3, 4, 5});
    CHECK(x.dtype() == Dtype::uint8);
    CHECK(x.to_vector<uint8_t>() == Bytes(content.begin() + 16, content.end()));
  }
  const Bytes large = idx({300, 28, 28});  // more than one buffer of zlib's
  const Bytes packed = gzip(large);
  CHECK(parse_idx(packed.data(), packed.size(), "f", 3).to_vector<uint8_t>() == Bytes(large.begin() + 16, large.end()));
}

TEST_CASE("Each fault of an IDX header has its own error") {
  CHECK(fault({}, 3) == "read_idx: f: expected an IDX file, got an empty one");
  CHECK(fault(gzip({}), 3) == "read_idx: f: expected an IDX file, got an empty one");
  CHECK(fault({0, 0}, 1) == "read_idx: f: expected a header of 8 bytes, got 2");
  CHECK(fault(cut(idx({3, 4, 5}), 15), 3) == "read_idx: f: expected a header of 16 bytes, got 15");
  CHECK(fault({'P', '5', ' ', '2', '8', ' '}, 3) == "read_idx: f: expected an IDX file (first bytes 00 00), got 50 35");
  CHECK(fault(idx_header({1}, 0x0d), 1) == "read_idx: f: expected elements of type 08 (uint8), got type 0d");
  CHECK(fault(idx({4}), 3) == "read_idx: f: expected 3 axes, got 1");
  CHECK(fault(gzip(idx({2, 2, 2})), 1) == "read_idx: f: expected 1 axes, got 3");
  CHECK(fault(idx_header({0, 28, 28}), 3) == "read_idx: f: expected extents above 0, got [0, 28, 28]");
  CHECK(fault(gzip(idx_header({3, 0, 28})), 3) == "read_idx: f: expected extents above 0, got [3, 0, 28]");
  CHECK(fault(idx_header({4294967295, 4294967295, 4294967295}), 3) ==
        "read_idx: f: expected extents with a product of at most 2^56, got [4294967295, 4294967295, 4294967295]");
}

TEST_CASE("An IDX file that promises more than it holds is refused before anything is allocated") {
  const uint64_t peak = memory_stats().bytes_peak, calls = memory_stats().system_allocations;
  CHECK(fault(idx_header({4294967295, 28, 28}), 3) ==
        "read_idx: f: expected 3367254359296 bytes, as its header [4294967295, 28, 28] promises, got 16 "
        "(3367254359280 missing)");
  const Bytes packed = gzip(idx_header({4294967295, 28, 28}));
  CHECK(fault(packed, 3) == "read_idx: f: its header [4294967295, 28, 28] promises 3367254359296 bytes, more than " +
                                std::to_string(packed.size()) + " bytes of gzip can hold");
  CHECK(memory_stats().bytes_peak == peak);
  CHECK(memory_stats().system_allocations == calls);
}

TEST_CASE("An IDX file of the wrong size is refused") {
  CHECK(fault(cut(idx({3, 4, 5}), 75), 3) ==
        "read_idx: f: expected 76 bytes, as its header [3, 4, 5] promises, got 75 (1 missing)");
  CHECK(fault(cut(idx({3, 4, 5}), 78), 3) ==
        "read_idx: f: expected 76 bytes, as its header [3, 4, 5] promises, got 78 (2 too many)");
  CHECK(fault(gzip(cut(idx({3, 4, 5}), 75)), 3) ==
        "read_idx: f: expected 76 bytes, as its header [3, 4, 5] promises, got 75 (1 missing)");
}

TEST_CASE("Damaged gzip data is refused") {
  const Bytes good = gzip(idx({3, 4, 5}));
  Bytes crc = good, length = good, body = good, longer = good;
  crc[good.size() - 8] ^= 1;
  length[good.size() - 4] ^= 1;
  body[12] ^= 0xff;
  longer.insert(longer.end(), {1, 2, 3});
  CHECK(fault(crc, 3) == "read_idx: f: its gzip data is damaged (incorrect data check)");
  CHECK(fault(length, 3) == "read_idx: f: its gzip data is damaged (incorrect length check)");
  CHECK_THROWS_AS(parse_idx(body.data(), body.size(), "f", 3), DataError);
  CHECK(fault(cut(good, good.size() - 1), 3) == "read_idx: f: its gzip data is cut short");
  CHECK(fault(cut(good, 20), 3) == "read_idx: f: its gzip data is cut short");
  CHECK(fault({0x1f, 0x8b}, 3) == "read_idx: f: its gzip data is cut short");
  CHECK(fault(longer, 3) == "read_idx: f: expected its gzip data to end the file, got 3 bytes more");
}

TEST_CASE("A gzip bomb is not inflated past what its header promises") {
  Bytes bomb = idx({3, 4, 5});
  bomb.resize(100 << 20);
  const Bytes packed = gzip(bomb);
  CHECK(packed.size() < 200'000);
  CHECK(fault(packed, 3) ==
        "read_idx: f: expected 76 bytes, as its header [3, 4, 5] promises, but its gzip data holds more");
}

TEST_CASE("What is no readable file is refused") {
  const TempDir dir;
  CHECK(error_of([&] { read_idx(dir.file("no"), 3); }) ==
        "read_idx: " + dir.file("no") + ": cannot be opened (No such file or directory)");
  CHECK(error_of([&] { read_idx(dir.path(), 3); }) == "read_idx: " + dir.path() + ": expected a regular file");
  REQUIRE(mkfifo(dir.file("pipe").c_str(), 0600) == 0);
  CHECK(error_of([&] { read_idx(dir.file("pipe"), 3); }) ==
        "read_idx: " + dir.file("pipe") + ": expected a regular file");
  CHECK(error_of([&] { read_idx(dir.file("no"), 0); }) ==
        "read_idx: " + dir.file("no") + ": cannot be opened (No such file or directory)");
  CHECK(error_of([] { parse_idx(nullptr, 0, "f", 0); }) == "read_idx: expected a rank of 1 to 6, got 0");
  CHECK(error_of([] { parse_idx(nullptr, 0, "f", 7); }) == "read_idx: expected a rank of 1 to 6, got 7");
}

TEST_CASE("Every byte of an IDX file may be damaged or cut without harm", "[fuzz]") {
  const Bytes content = idx({3, 4, 5});
  for (const Bytes& good : {content, gzip(content)}) {
    for (size_t i = 0; i < good.size(); ++i) {
      for (uint8_t flip : {0x01, 0x80, 0xff}) {
        Bytes bad = good;
        bad[i] ^= flip;
        int64_t elements = 60;  // a damaged element alone is not seen
        try {
          elements = parse_idx(bad.data(), bad.size(), "f", 3).numel();
        } catch (const DataError&) {
        }
        CHECK(elements == 60);
      }
      const Bytes shorter = cut(good, i);
      CHECK_THROWS_AS(parse_idx(shorter.data(), i, "f", 3), DataError);
    }
  }
}

}  // namespace tandem::test
