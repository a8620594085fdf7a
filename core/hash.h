// SHA-256 (FIPS 180-4) and MD5 (RFC 1321) of bytes, as lower-case hex: to check downloads and to prove that
// two runs started alike. Written here because a library that links OpenSSL for two functions is no small one.
#pragma once

#include <cstddef>
#include <string>

namespace tandem {

std::string sha256(const void* data, size_t size);
std::string md5(const void* data, size_t size);

}  // namespace tandem
