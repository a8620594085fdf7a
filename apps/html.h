// Pieces of the HTML pages. A page needs nothing else: style and pictures are inside, there is no script.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace tandem {

// Names and values, for tables of settings and environment.
using Facts = std::vector<std::pair<std::string, std::string>>;

// The whole page around `body`, which is HTML; title and subtitle are text.
std::string html_page(const std::string& title, const std::string& subtitle, const std::string& body);

std::string replace_all(std::string text, const std::string& from, const std::string& to);
// A minus sign for every hyphen that starts a number.
std::string with_minus_signs(const std::string& text);

std::string row_html(const std::vector<std::string>& cells, const char* tag = "td");  // cells are HTML
std::string list_html(const std::vector<std::string>& sentences);                     // sentences are text
std::string facts_html(const Facts& facts);                                           // names and values are text
std::string figure(const std::string& caption, const std::string& svg);

}  // namespace tandem
