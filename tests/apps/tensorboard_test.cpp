// TensorBoard's event files, byte by byte. tests/interop reads them with TensorBoard itself.
#include "tensorboard.h"

#include <fmt/format.h>

#include <cstring>

#include "../catch.hpp"
#include "program.h"

using namespace tandem;
using namespace tandem::test;

namespace {
std::string hex(const std::string& bytes) {
  std::string out;
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<uint8_t>(c));
  return out;
}
}  // namespace

TEST_CASE("CRC-32C matches the vectors of RFC 3720, appendix B.4") {
  std::string up(32, '\0');
  for (int i = 0; i < 32; ++i) up[i] = static_cast<char>(i);
  CHECK(crc32c(std::string(32, '\0')) == 0x8a9136aau);
  CHECK(crc32c(std::string(32, '\xff')) == 0x62a8ab43u);
  CHECK(crc32c(up) == 0x46dd794eu);
  CHECK(crc32c(std::string(up.rbegin(), up.rend())) == 0x113fdb5cu);
  CHECK(crc32c("123456789") == 0xe3069283u);
}

TEST_CASE("An event file holds the version and then the scalars") {
  const TempDir dir;
  {
    EventFile events(dir.path(), 1700000000.5);
    events.scalar("loss/train", 300, 0.125, 1700000001.25);
  }
  const auto files = files_in(dir.path());
  REQUIRE(files.size() == 1);
  CHECK(files[0].starts_with("events.out.tfevents.1700000000."));
  // The same two events written by TensorBoard 2.21's RecordWriter.
  CHECK(hex(read_text(dir.file(files[0]))) ==
        "1800000000000000a37f4b22"
        "0900002040fc54d941"
        "1a0d627261696e2e4576656e743a32"
        "2b353110"
        "2100000000000000017becf6"
        "0900005040fc54d941"
        "10ac02"
        "2a130a110a0a6c6f73732f747261696e150000003e"
        "3965ec0b");
}
