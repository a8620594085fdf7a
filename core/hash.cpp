#include "tandem/core/hash.h"

#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace tandem {
namespace {

// Both functions eat blocks of 64 bytes: the message, a byte 0x80, zeros, and its length in bits (8 bytes).
template <class Block>
void for_each_block(const void* data, size_t size, bool big_endian_length, Block block) {
  const uint8_t* bytes = static_cast<const uint8_t*>(data);
  const size_t whole = size / 64 * 64, rest = size - whole;
  for (size_t i = 0; i < whole; i += 64) block(bytes + i);
  uint8_t tail[128] = {};
  if (rest) std::memcpy(tail, bytes + whole, rest);
  tail[rest] = 0x80;
  const size_t padded = rest < 56 ? 64 : 128;
  for (int i = 0; i < 8; ++i) {
    const uint8_t byte = static_cast<uint8_t>(uint64_t{size} * 8 >> (8 * i));
    tail[big_endian_length ? padded - 1 - i : padded - 8 + i] = byte;
  }
  for (size_t i = 0; i < padded; i += 64) block(tail + i);
}

uint32_t load_big(const uint8_t* p) {
  return uint32_t{p[0]} << 24 | uint32_t{p[1]} << 16 | uint32_t{p[2]} << 8 | p[3];
}
uint32_t load_little(const uint8_t* p) {
  return uint32_t{p[3]} << 24 | uint32_t{p[2]} << 16 | uint32_t{p[1]} << 8 | p[0];
}

template <size_t N>
std::string hex(const std::array<uint32_t, N>& words, bool big_endian) {
  std::string text;
  for (uint32_t word : words) {
    for (int i = 0; i < 4; ++i) {
      const uint32_t byte = word >> (big_endian ? 24 - 8 * i : 8 * i);
      text += "0123456789abcdef"[byte >> 4 & 15];
      text += "0123456789abcdef"[byte & 15];
    }
  }
  return text;
}

// FIPS 180-4, section 4.2.2: the cube roots of the first 64 primes.
constexpr uint32_t kSha[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

void sha_block(std::array<uint32_t, 8>& state, const uint8_t* block) {
  uint32_t w[64];
  for (int t = 0; t < 16; ++t) w[t] = load_big(block + 4 * t);
  for (int t = 16; t < 64; ++t) {
    const uint32_t a = w[t - 15], b = w[t - 2];
    w[t] = w[t - 16] + (std::rotr(a, 7) ^ std::rotr(a, 18) ^ a >> 3) + w[t - 7] +
           (std::rotr(b, 17) ^ std::rotr(b, 19) ^ b >> 10);
  }
  auto [a, b, c, d, e, f, g, h] = state;
  for (int t = 0; t < 64; ++t) {
    const uint32_t t1 =
        h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) + ((e & f) ^ (~e & g)) + kSha[t] + w[t];
    const uint32_t t2 = (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g, g = f, f = e, e = d + t1;
    d = c, c = b, b = a, a = t1 + t2;
  }
  const uint32_t sum[8] = {a, b, c, d, e, f, g, h};
  for (int i = 0; i < 8; ++i) state[i] += sum[i];
}

// RFC 1321, section 3.4: T[i] = floor(2^32 |sin(i + 1)|).
const std::array<uint32_t, 64> kMd5 = [] {
  std::array<uint32_t, 64> t;
  for (int i = 0; i < 64; ++i) t[i] = static_cast<uint32_t>(std::abs(std::sin(i + 1.0)) * 0x1p32);
  return t;
}();

void md5_block(std::array<uint32_t, 4>& state, const uint8_t* block) {
  static constexpr int kRotate[4][4] = {{7, 12, 17, 22}, {5, 9, 14, 20}, {4, 11, 16, 23}, {6, 10, 15, 21}};
  static constexpr int kStep[4] = {1, 5, 3, 7}, kStart[4] = {0, 1, 5, 0};
  auto [a, b, c, d] = state;
  for (int i = 0; i < 64; ++i) {
    const int round = i / 16;
    const uint32_t f = round == 0   ? (b & c) | (~b & d)
                       : round == 1 ? (b & d) | (c & ~d)
                       : round == 2 ? b ^ c ^ d
                                    : c ^ (b | ~d);
    const uint32_t x = load_little(block + 4 * ((kStep[round] * i + kStart[round]) % 16));
    const uint32_t next = b + std::rotl(a + f + x + kMd5[i], kRotate[round][i % 4]);
    a = d, d = c, c = b, b = next;
  }
  state[0] += a, state[1] += b, state[2] += c, state[3] += d;
}

}  // namespace

std::string sha256(const void* data, size_t size) {
  std::array<uint32_t, 8> state = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                   0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  for_each_block(data, size, true, [&](const uint8_t* block) { sha_block(state, block); });
  return hex(state, true);
}

std::string md5(const void* data, size_t size) {
  std::array<uint32_t, 4> state = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476};
  for_each_block(data, size, false, [&](const uint8_t* block) { md5_block(state, block); });
  return hex(state, false);
}

}  // namespace tandem
