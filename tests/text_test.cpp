// Parsing what people type, and guessing what they meant.
#include "tandem/core/text.h"

#include "catch.hpp"

using namespace tandem;

TEST_CASE("Numbers are parsed whole or not at all") {
  CHECK(parse_int("-12") == -12);
  CHECK(parse_double("1e-5") == 1e-5);
  CHECK(parse_double(".5") == 0.5);
  for (const char* text : {"", " 1", "1 ", "1x", "0x10", "1,5", "9223372036854775808", "1.0"}) {
    INFO(text);
    CHECK(!parse_int(text));
  }
  for (const char* text : {"", "1,5", "1.5 ", "one", "1e999"}) {
    INFO(text);
    CHECK(!parse_double(text));
  }
}

TEST_CASE("Text is split at separators outside parentheses") {
  using Pieces = std::vector<std::string>;
  CHECK(split("a, b ,c", ',') == Pieces{"a", "b", "c"});
  CHECK(split("dense:3:init=normal(0, 0.1), relu", ',') == Pieces{"dense:3:init=normal(0, 0.1)", "relu"});
  CHECK(split("", ',') == Pieces{""});
  CHECK(split("a,,b,", ',') == Pieces{"a", "", "b", ""});
  CHECK(split("a),b", ',') == Pieces{"a)", "b"});
}

TEST_CASE("The nearest name is found for a slip of the keyboard, and none for another word") {
  const std::vector<std::string> known{"dense", "conv", "maxpool", "avgpool", "bn"};
  CHECK(nearest("dens", known) == "dense");
  CHECK(nearest("denes", known) == "dense");  // two neighbours swapped: one edit
  CHECK(nearest("conv2d", known) == "conv");
  CHECK(nearest("maxpol", known) == "maxpool");
  CHECK(nearest("bm", known) == "bn");
  CHECK(nearest("lstm", known).empty());
  CHECK(nearest("", known).empty());
  CHECK(nearest("x", known).empty());
  CHECK(nearest(std::string(100'000, 'x'), known).empty());
  CHECK(did_you_mean("Dense", known) == " (did you mean \"dense\"?)");
  CHECK(did_you_mean("lstm", known).empty());
}

TEST_CASE("Digits are grouped by thousands") {
  CHECK(group_digits(0) == "0");
  CHECK(group_digits(999) == "999");
  CHECK(group_digits(1000) == "1,000");
  CHECK(group_digits(1234567) == "1,234,567");
  CHECK(group_digits(-1234) == "-1,234");
  CHECK(group_digits(-123) == "-123");
}
