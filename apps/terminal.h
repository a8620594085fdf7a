// What the user sees besides results: messages on stderr, with colour where the terminal wants it.
#pragma once

#include <cstdio>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace tandem {

enum class Color { automatic, always, never };
void set_color(Color color);  // automatic: on a terminal, unless NO_COLOR is set or TERM is dumb
void set_quiet(bool quiet);   // notices and progress are dropped
bool is_quiet();

// Does `stream` go to a terminal that can move its cursor?
bool is_terminal(std::FILE* stream);
int terminal_width(std::FILE* stream);  // 80 if unknown

enum class Style { bold, red, yellow };
// `text` in that style if `stream` shows colours, else as it is.
std::string styled(std::FILE* stream, Style style, const std::string& text);

// The last line of the terminal, replaced by the next status and kept below messages; empty removes it.
void show_status(const std::string& text);

// One line on stderr each. A warning is shown once however often it is given.
void notice(const std::string& text);
void warning(const std::string& sentence);
void error(const std::string& sentence);

// All of `text` to stdout. Throws IoError when it cannot be written (a full disk, a closed pipe).
void print(const std::string& text);
// A line of JSON; bytes of a path or a message that are no UTF-8 become U+FFFD.
void print_json(const nlohmann::ordered_json& value);
std::string indented(const nlohmann::ordered_json& value);  // the same, a line each

}  // namespace tandem
