#include "tensorboard.h"

#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <cstring>

namespace tandem {

namespace {

constexpr std::array<uint32_t, 256> make_crc_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) crc = crc & 1 ? crc >> 1 ^ 0x82f63b78u : crc >> 1;
    table[i] = crc;
  }
  return table;
}

template <class T>
std::string bytes_of(T value) {  // x86-64 is little-endian, as the format
  std::string bytes(sizeof value, '\0');
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

// The rotation keeps a checksum of data that holds checksums from being a fixed number.
std::string masked_crc(std::string_view bytes) {
  const uint32_t crc = crc32c(bytes);
  return bytes_of((crc >> 15 | crc << 17) + 0xa282ead8u);
}

// ---- protobuf: a field is its number and wire type, then its value
enum Wire { kVarint = 0, kDouble = 1, kBytes = 2, kFloat = 5 };

std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  return out + static_cast<char>(value);
}
std::string key(int field, Wire wire) { return varint(static_cast<uint64_t>(field) << 3 | wire); }
std::string bytes_field(int field, std::string_view value) {
  return key(field, kBytes) + varint(value.size()) + std::string(value);
}

// Event { double wall_time = 1; int64 step = 2; string file_version = 3; Summary summary = 5; }
// A step of 0 is the default and left out.
std::string event(double wall_time, int64_t step) {
  const std::string time = key(1, kDouble) + bytes_of(wall_time);
  return step == 0 ? time : time + key(2, kVarint) + varint(static_cast<uint64_t>(step));
}

std::string file_name(const std::string& folder, double wall_time) {
  char host[256] = "localhost";
  gethostname(host, sizeof host - 1);
  return fmt::format("{}/events.out.tfevents.{:010}.{}", folder, static_cast<int64_t>(wall_time), host);
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> table = make_crc_table();
  uint32_t crc = ~0u;
  for (const char c : bytes) crc = table[(crc ^ static_cast<uint8_t>(c)) & 0xff] ^ crc >> 8;
  return ~crc;
}

std::string tensorboard_record(std::string_view data) {
  const std::string length = bytes_of(static_cast<uint64_t>(data.size()));
  return length + masked_crc(length) + std::string(data) + masked_crc(data);
}

EventFile::EventFile(const std::string& folder, double wall_time) : file_(file_name(folder, wall_time)) {
  file_.append(tensorboard_record(event(wall_time, 0) + bytes_field(3, "brain.Event:2")));
}

// Summary { repeated Value value = 1; }  Value { string tag = 1; float simple_value = 2; }
void EventFile::scalar(const std::string& tag, int64_t step, double value, double wall_time) {
  const std::string summary_value = bytes_field(1, tag) + key(2, kFloat) + bytes_of(static_cast<float>(value));
  file_.append(tensorboard_record(event(wall_time, step) + bytes_field(5, bytes_field(1, summary_value))));
}

}  // namespace tandem
