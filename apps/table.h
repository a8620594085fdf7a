// A table for the terminal: never wider than asked; long cells wrap at spaces.
#pragma once

#include <string>
#include <vector>

namespace tandem {

struct Table {
  std::vector<std::string> header;
  std::vector<std::vector<std::string>> rows;  // as many cells as the header

  // Lines ending in '\n': header, a rule, rows. The first column is flush left, the others flush right.
  std::string to_string(size_t width = 80) const;
};

// Words of `text` in lines of at most `width` characters, each after `indent` spaces.
std::string wrap(const std::string& text, size_t width = 80, size_t indent = 0);

}  // namespace tandem
