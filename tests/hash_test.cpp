#include "tandem/core/hash.h"

#include "catch.hpp"

namespace tandem {

TEST_CASE("SHA-256 gives the sums of FIPS 180-4 and of every padding") {
  const auto sum = [](const std::string& text) { return sha256(text.data(), text.size()); };
  CHECK(sum("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sum("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sum("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sum(std::string(55, 'a')) == "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
  CHECK(sum(std::string(56, 'a')) == "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
  CHECK(sum(std::string(64, 'a')) == "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
  CHECK(sum(std::string(119, 'a')) == "31eba51c313a5c08226adf18d4a359cfdfd8d2e816b13f4af952f7ea6584dcfb");
  CHECK(sum(std::string(1000000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("MD5 gives the sums of RFC 1321 and of every padding") {
  const auto sum = [](const std::string& text) { return md5(text.data(), text.size()); };
  CHECK(sum("") == "d41d8cd98f00b204e9800998ecf8427e");
  CHECK(sum("a") == "0cc175b9c0f1b6a831c399e269772661");
  CHECK(sum("message digest") == "f96b697d7cb7938d525a2f31aaf161d0");
  CHECK(sum("12345678901234567890123456789012345678901234567890123456789012345678901234567890") ==
        "57edf4a22be3c955ac49da2e2107b67a");
  CHECK(sum(std::string(55, 'a')) == "ef1772b6dff9a122358552954ad0df65");
  CHECK(sum(std::string(56, 'a')) == "3b0c8ac703f828b04c6c197006d17218");
  CHECK(sum(std::string(64, 'a')) == "014842d480b571495a4a0363793f7367");
  CHECK(sum(std::string(119, 'a')) == "8a7bd0732ed6a28ce75f6dabc90e1613");
}

}  // namespace tandem
