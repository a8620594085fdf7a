#include "table.h"

#include <algorithm>
#include <sstream>

namespace tandem {

namespace {

const std::string gap = "  ";

std::vector<std::string> wrap_lines(const std::string& text, size_t width) {
  std::vector<std::string> lines(1);
  std::istringstream words(text);
  for (std::string word; words >> word;) {
    std::string& line = lines.back();
    if (line.empty()) {
      line = word;
    } else if (line.size() + 1 + word.size() <= width) {
      line += " " + word;
    } else {
      lines.push_back(word);
    }
  }
  return lines;
}

// The widths that the cells want, the widest columns cut until the line fits.
std::vector<size_t> column_widths(const Table& table, size_t width) {
  std::vector<size_t> widths(table.header.size());
  auto grow = [&](const std::vector<std::string>& row) {
    for (size_t i = 0; i < row.size() && i < widths.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  };
  grow(table.header);
  for (const auto& row : table.rows) grow(row);
  size_t total = gap.size() * (widths.size() - 1);
  for (size_t w : widths) total += w;
  for (; total > width; --total) {
    auto widest = std::max_element(widths.begin(), widths.end());
    if (*widest <= 6) break;
    --*widest;
  }
  return widths;
}

void append_row(std::string& out, const std::vector<std::string>& row, const std::vector<size_t>& widths) {
  std::vector<std::vector<std::string>> cells;
  size_t height = 1;
  for (size_t i = 0; i < row.size(); ++i) {
    cells.push_back(wrap_lines(row[i], widths[i]));
    height = std::max(height, cells.back().size());
  }
  for (size_t line = 0; line < height; ++line) {
    std::string text;
    for (size_t i = 0; i < cells.size(); ++i) {
      const std::string cell = line < cells[i].size() ? cells[i][line] : "";
      const std::string padding(widths[i] - std::min(widths[i], cell.size()), ' ');
      text += i == 0 ? cell + padding : gap + padding + cell;
    }
    text.erase(text.find_last_not_of(' ') + 1);
    out += text + "\n";
  }
}

}  // namespace

std::string Table::to_string(size_t width) const {
  const std::vector<size_t> widths = column_widths(*this, width);
  std::string out;
  append_row(out, header, widths);
  std::vector<std::string> rule;
  for (size_t w : widths) rule.emplace_back(w, '-');
  append_row(out, rule, widths);
  for (const auto& row : rows) append_row(out, row, widths);
  return out;
}

std::string wrap(const std::string& text, size_t width, size_t indent) {
  std::string out;
  for (const auto& line : wrap_lines(text, width - indent)) out += std::string(indent, ' ') + line + "\n";
  return out;
}

}  // namespace tandem
