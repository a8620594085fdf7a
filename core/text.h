// Texts that people type and read: strict parsing, and the nearest name for one that is not known.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace tandem {

// The whole of `text` as a number, in the C locale; nothing if any character is left over.
std::optional<double> parse_double(std::string_view text);
std::optional<int64_t> parse_int(std::string_view text);

// The pieces between separators that stand outside (), trimmed of spaces: "a, f(b, c)" at ',' -> "a", "f(b, c)".
std::vector<std::string> split(std::string_view text, char separator);

// The candidate with the fewest edits (insert, delete, replace, swap of neighbours) from `word`; empty if
// even that one differs in more than a third of its letters.
std::string nearest(std::string_view word, const std::vector<std::string>& candidates);
// ` (did you mean "dense"?)`, or nothing.
std::string did_you_mean(std::string_view word, const std::vector<std::string>& candidates);

// 1234567 -> "1,234,567".
std::string group_digits(int64_t n);

}  // namespace tandem
