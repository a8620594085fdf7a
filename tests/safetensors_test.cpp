// The safetensors format: golden bytes, round trips, and files made to break a reader.
#include "tandem/core/safetensors.h"

#include <cmath>
#include <cstring>
#include <filesystem>
#include <limits>
#include <set>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"
#include "tandem/core/file.h"
#include "tandem/core/random.h"
#include "tandem/core/storage.h"

using namespace tandem;
using namespace tandem::test;

namespace {

std::string length_bytes(uint64_t length) { return std::string(reinterpret_cast<const char*>(&length), 8); }

std::string file_of(const std::string& header, size_t data_bytes) {
  return length_bytes(header.size()) + header + std::string(data_bytes, '\1');
}

std::string text_of(const std::string& path) {
  const std::vector<uint8_t> raw = read_file(path);
  return std::string(raw.begin(), raw.end());
}

// The header entry of a float32 tensor of n elements at the start of the data.
std::string f32(const std::string& name, int n) {
  return "\"" + name + "\":{\"dtype\":\"F32\",\"shape\":[" + std::to_string(n) + "],\"data_offsets\":[0," +
         std::to_string(4 * n) + "]}";
}

struct Hostile {
  const char* what;
  std::string bytes;
  std::string error;  // after "safetensors: PATH: "
};

std::string entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return "{\"a\":{\"dtype\":" + dtype + ",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}}";
}

std::vector<Hostile> hostile_files() {
  const std::string a_then_b =
      "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"U8\",";
  return {
      {"empty", "", "expected at least the 8 bytes of the header's length, the file has 0"},
      {"7 bytes", "1234567", "expected at least the 8 bytes of the header's length, the file has 7"},
      {"header length 2^64 - 1", length_bytes(~uint64_t{0}) + "{}",
       "the header's length must be at most 100000000, got 18446744073709551615"},
      {"header length above the limit", length_bytes(100'000'001) + "{}",
       "the header's length must be at most 100000000, got 100000001"},
      {"header length past the end", length_bytes(3) + "{}",
       "the header's length is 3, but only 2 bytes follow it; the file is cut short"},
      {"empty header", length_bytes(0), "the header must begin with '{'"},
      {"space before the object", file_of(" {}", 0), "the header must begin with '{'"},
      {"an array", file_of("[]", 0), "the header must begin with '{'"},
      {"NUL padding", file_of(std::string("{}\0", 3), 0), "the header must end with '}' and spaces, got byte 0x00"},
      {"newline padding", file_of("{}\n", 0), "the header must end with '}' and spaces, got byte 0x0a"},
      {"two objects", file_of("{} {}", 0), "the header is not valid JSON (at its byte 4)"},
      {"unfinished JSON", file_of("{\"a\":}", 0), "the header is not valid JSON (at its byte 6)"},
      {"a comment", file_of("{/* */}", 0), "the header is not valid JSON (at its byte 2)"},
      {"invalid UTF-8", file_of("{\"\xff\":{}}", 0), "the header is not valid JSON (at its byte 3)"},
      {"a number beyond double", file_of(entry("\"F32\"", "[1e999]", "[0,4]"), 4),
       "the header is not valid JSON (a number out of range)"},
      {"a tensor twice", file_of("{" + f32("a", 1) + "," + f32("a", 1) + "}", 4), "the key \"a\" appears twice"},
      {"a tensor twice, once escaped", file_of("{" + f32("a", 1) + "," + f32("\\u0061", 1) + "}", 4),
       "the key \"a\" appears twice"},
      {"metadata twice", file_of("{\"__metadata__\":{},\"__metadata__\":{}}", 0),
       "the key \"__metadata__\" appears twice"},
      {"a field twice", file_of("{\"a\":{\"dtype\":\"U8\",\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,1]}}", 1),
       "the key \"dtype\" appears twice"},
      {"a tower of arrays", file_of("{\"a\":" + std::string(100'000, '[') + std::string(100'000, ']') + "}", 0),
       "the header nests deeper than the format does"},
      {"metadata is a string", file_of("{\"__metadata__\":\"x\"}", 0),
       "__metadata__ must be an object of strings, got string"},
      {"metadata holds a number", file_of("{\"__metadata__\":{\"epoch\":3}}", 0),
       "__metadata__ must hold strings, got number for \"epoch\""},
      {"a tensor is a number", file_of("{\"a\":3}", 0), "tensor \"a\" must be an object, got number"},
      {"no dtype", file_of("{\"a\":{\"shape\":[1],\"data_offsets\":[0,1]}}", 1), "tensor \"a\" has no dtype"},
      {"no shape", file_of("{\"a\":{\"dtype\":\"U8\",\"data_offsets\":[0,1]}}", 1), "tensor \"a\" has no shape"},
      {"no offsets", file_of("{\"a\":{\"dtype\":\"U8\",\"shape\":[1]}}", 1), "tensor \"a\" has no data_offsets"},
      {"an unknown field",
       file_of("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1],\"file\":\"/etc/passwd\"}}", 1),
       "tensor \"a\" has an unknown field \"file\""},
      {"dtype is a number", file_of(entry("32", "[1]", "[0,4]"), 4),
       "tensor \"a\": dtype must be a string, got number"},
      {"dtype BF16", file_of(entry("\"BF16\"", "[2]", "[0,4]"), 4),
       "tensor \"a\": dtype \"BF16\" is not one of F32, F64, I32, I64, U8; convert it before"},
      {"shape is a number", file_of(entry("\"F32\"", "1", "[0,4]"), 4),
       "tensor \"a\": shape must be an array, got number"},
      {"a negative extent", file_of(entry("\"F32\"", "[-1]", "[0,4]"), 4),
       "tensor \"a\": shape must hold integers >= 0, got -1"},
      {"a fractional extent", file_of(entry("\"F32\"", "[1.0]", "[0,4]"), 4),
       "tensor \"a\": shape must hold integers >= 0, got 1.0"},
      {"an extent of 2^64", file_of(entry("\"F32\"", "[18446744073709551616]", "[0,4]"), 4),
       "tensor \"a\": shape must hold integers >= 0, got 1.8446744073709552e+19"},
      {"seven axes", file_of(entry("\"F32\"", "[1,1,1,1,1,1,1]", "[0,4]"), 4),
       "tensor \"a\": at most 6 axes can be read, shape has 7"},
      {"a product of 2^64", file_of(entry("\"F32\"", "[4294967296,4294967296]", "[0,0]"), 0),
       "tensor \"a\": the extents of its shape multiply to more than any file holds"},
      {"a product of 2^64 hidden by a 0", file_of(entry("\"F32\"", "[0,4294967296,4294967296]", "[0,0]"), 0),
       "tensor \"a\": the extents of its shape multiply to more than any file holds"},
      {"bytes that wrap to 4", file_of(entry("\"F32\"", "[4611686018427387905]", "[0,4]"), 4),
       "tensor \"a\": the extents of its shape multiply to more than any file holds"},
      {"one offset", file_of(entry("\"F32\"", "[1]", "[0]"), 4),
       "tensor \"a\": data_offsets must be two numbers, got 1"},
      {"offsets backwards", file_of(entry("\"F32\"", "[1]", "[4,0]"), 4),
       "tensor \"a\": data_offsets [4, 0] run backwards"},
      {"offsets past the end", file_of(entry("\"F32\"", "[2]", "[0,8]"), 7),
       "tensor \"a\": data_offsets [0, 8] reach past the 7 bytes of data; the file is cut short"},
      {"1 TB claimed by a small file", file_of(entry("\"F32\"", "[274877906944]", "[0,1099511627776]"), 4),
       "tensor \"a\": data_offsets [0, 1099511627776] reach past the 4 bytes of data; the file is cut short"},
      {"fewer bytes than the shape takes", file_of(entry("\"F32\"", "[2,3]", "[0,20]"), 20),
       "tensor \"a\": [2, 3] of float32 takes 24 bytes, data_offsets [0, 20] hold 20"},
      {"data that begin late", file_of(entry("\"U8\"", "[2]", "[1,3]"), 3),
       "bytes 0 to 1 of the data, before tensor \"a\", belong to no tensor"},
      {"a hole", file_of(a_then_b + "\"shape\":[2],\"data_offsets\":[5,7]}}", 7),
       "bytes 4 to 5 of the data, before tensor \"b\", belong to no tensor"},
      {"an overlap", file_of(a_then_b + "\"shape\":[4],\"data_offsets\":[3,7]}}", 7),
       "tensor \"b\" begins at byte 3 of the data, inside the one before, which ends at 4"},
      {"the same bytes twice", file_of(a_then_b + "\"shape\":[4],\"data_offsets\":[0,4]}}", 4),
       "tensor \"b\" begins at byte 0 of the data, inside the one before, which ends at 4"},
      {"trailing bytes", file_of("{" + f32("a", 1) + "}", 6), "2 bytes follow the last tensor"},
      {"data without a tensor", file_of("{}", 1), "1 bytes follow the last tensor"},
  };
}

}  // namespace

TEST_CASE("A safetensors file has exactly these bytes") {
  const TempDir dir;
  const std::string path = dir.file("golden.safetensors");
  write_safetensors(path, {{{"u", Tensor::from<uint8_t>({1, 2, 3}, {3})},
                            {"w", Tensor::from<float>({1.0f, -2.0f}, {1, 2})},
                            {"n", Tensor::from<int64_t>({7}, {})}},
                           {{"layers", "dense:2"}, {"a", "\"b\"\n"}}});
  // Wide elements first, whatever the order given; the header is padded to a multiple of 8.
  const std::string header =
      "{\"__metadata__\":{\"a\":\"\\\"b\\\"\\n\",\"layers\":\"dense:2\"},"
      "\"n\":{\"dtype\":\"I64\",\"shape\":[],\"data_offsets\":[0,8]},"
      "\"w\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[8,16]},"
      "\"u\":{\"dtype\":\"U8\",\"shape\":[3],\"data_offsets\":[16,19]}}   ";
  REQUIRE(header.size() == 216);
  const std::string data("\x07\0\0\0\0\0\0\0\0\0\x80\x3f\0\0\0\xc0\x01\x02\x03", 19);
  CHECK(text_of(path) == std::string("\xd8\0\0\0\0\0\0\0", 8) + header + data);
}

TEST_CASE("Tensors of every dtype come back from a safetensors file bit for bit") {
  const TempDir dir;
  const std::string path = dir.file("all.safetensors");
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const SafeTensors written{{{"f32", random({3, 4, 5}, 1)},
                             {"f64", Tensor::from<double>({nan, inf, -0.0, 5e-324}, {2, 2})},
                             {"i32", Tensor::from<int32_t>({-1, INT32_MAX}, {2})},
                             {"i64", Tensor::from<int64_t>({INT64_MIN}, {})},
                             {"u8", Tensor::from<uint8_t>({0, 255, 3}, {3, 1})},
                             {"nothing", zeros({0, 7})},
                             {"", ones({1})},
                             {"\xc3\xa9 \"quoted\"\\", ones({2})}},
                            {{"key", "value"}}};
  write_safetensors(path, written);
  const SafeTensors read = read_safetensors(path);
  CHECK(read.metadata == written.metadata);
  REQUIRE(read.tensors.size() == written.tensors.size());
  for (const auto& [name, tensor] : written.tensors) {
    INFO(name);
    const std::string& wanted = name;
    const auto found =
        std::find_if(read.tensors.begin(), read.tensors.end(), [&](const auto& item) { return item.first == wanted; });
    REQUIRE(found != read.tensors.end());
    CHECK(found->second.dtype() == tensor.dtype());
    CHECK(found->second.shape() == tensor.shape());
    CHECK(bytes(found->second) == bytes(tensor));
  }
}

TEST_CASE("A safetensors file without tensors is read") {
  const TempDir dir;
  write_safetensors(dir.file("none"), {});
  CHECK(text_of(dir.file("none")) == file_of("{}      ", 0));
  CHECK(read_safetensors(dir.file("none")).tensors.empty());
}

TEST_CASE("Every hostile safetensors file is refused with a sentence of its own, and nothing is allocated") {
  const TempDir dir;
  const std::string path = dir.file("hostile.safetensors");
  for (const Hostile& file : hostile_files()) {
    INFO(file.what);
    write_file(path, file.bytes);
    const MemoryStats before = memory_stats();
    CHECK(error_of([&] { read_safetensors(path); }) == "safetensors: " + path + ": " + file.error);
    CHECK_THROWS_AS(read_safetensors(path), ModelFileError);
    CHECK(memory_stats().bytes_peak == before.bytes_peak);
    CHECK(memory_stats().system_allocations == before.system_allocations);
  }
}

TEST_CASE("A huge file is refused by its header, without being read") {
  const TempDir dir;
  const std::string path = dir.file("huge.safetensors");
  write_file(path, file_of("{}", 0));
  std::filesystem::resize_file(path, uint64_t{1} << 42);  // sparse
  CHECK(error_of([&] { read_safetensors(path); }) ==
        "safetensors: " + path + ": 4398046511094 bytes follow the last tensor");
}

TEST_CASE("A safetensors file cut anywhere is refused") {
  const TempDir dir;
  const std::string path = dir.file("cut.safetensors");
  write_safetensors(path, {{{"a", random({5}, 1)}, {"b", random({2, 2}, 2, Dtype::float64)}}, {{"k", "v"}}});
  const std::string whole = text_of(path);
  for (size_t size = 0; size < whole.size(); ++size) {
    write_file(path, std::string_view(whole).substr(0, size));
    CHECK_THROWS_AS(read_safetensors(path), ModelFileError);
  }
}

TEST_CASE("A safetensors file with flipped bits is read or refused, never a crash") {
  const TempDir dir;
  const std::string path = dir.file("flipped.safetensors");
  write_safetensors(path, {{{"a", random({5}, 1)}, {"b", random({2, 2}, 2, Dtype::float64)}}, {{"k", "v"}}});
  const std::string whole = text_of(path);
  const Stream stream(1, "flips");
  int refused = 0;
  for (uint64_t i = 0; i < 2000; ++i) {
    std::string flipped = whole;
    for (uint64_t bit = 0; bit <= i % 3; ++bit) {
      flipped[stream.below(8 * i + 2 * bit, whole.size())] ^=
          static_cast<char>(1 << stream.below(8 * i + 2 * bit + 1, 8));
    }
    write_file(path, flipped);
    try {
      read_safetensors(path);
    } catch (const ModelFileError&) {
      ++refused;
    }
  }
  CHECK(refused > 500);
}

TEST_CASE("A missing safetensors file is a model file error that names it") {
  CHECK(error_of([] { read_safetensors("/nowhere/x.safetensors"); }) ==
        "safetensors: cannot read /nowhere/x.safetensors: No such file or directory");
  CHECK_THROWS_AS(read_safetensors("/nowhere/x.safetensors"), ModelFileError);
}

TEST_CASE("Tensors that cannot be written leave no safetensors file") {
  const TempDir dir;
  const std::string path = dir.file("x.safetensors");
  CHECK(error_of([&] {
          write_safetensors(path, {{{"a", ones({1})}, {"a", ones({1})}}, {}});
        }) == "safetensors: " + path + ": the name \"a\" is already taken");
  CHECK(error_of([&] {
          write_safetensors(path, {{{"__metadata__", ones({1})}}, {}});
        }) == "safetensors: " + path + ": the name \"__metadata__\" is already taken");
  CHECK(error_of([&] {
          write_safetensors(path, {{{"a", ones({1})}}, {{"k", "\xff"}}});
        }) == "safetensors: " + path + ": names and metadata must be UTF-8");
  CHECK_THROWS_AS(read_file(path), IoError);
}
