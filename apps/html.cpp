#include "html.h"

#include <fmt/format.h>

#include "svg.h"
#include "tandem/core/version.h"

namespace tandem {
namespace {

constexpr const char* style = R"(
:root { color-scheme: light; }
body { margin: 0; background: #ffffff; color: #222222; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: 8px 16px 48px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 16px 0 4px; }
h2 { font-size: 1.15rem; margin: 36px 0 8px; border-bottom: 1px solid #d5d5d5; padding-bottom: 4px; }
p, li { max-width: 46rem; }
ul { padding-left: 1.2rem; margin: 8px 0; }
.subtitle { color: #555555; margin: 0 0 12px; }
.findings { background: #f4f6f8; border-left: 4px solid #444444; padding: 8px 16px; max-width: 50rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.92rem; }
th, td { text-align: right; padding: 4px 14px 4px 0; border-bottom: 1px solid #e6e6e6; vertical-align: top; }
th:first-child, td:first-child, .facts td, .facts th, .seeds td:nth-child(2), .seeds th:nth-child(2) { text-align: left; }
.text td { text-align: left; }
.facts td { overflow-wrap: anywhere; }
.facts td:first-child, .arm { white-space: nowrap; }
.facts td:first-child { color: #555555; }
small { color: #555555; white-space: nowrap; }
code { font-size: 0.85em; overflow-wrap: anywhere; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); gap: 24px 32px; margin-top: 12px; }
figure { margin: 0; }
figcaption { font-size: 0.92rem; margin-bottom: 4px; }
svg { width: 100%; height: auto; display: block; }
.key { display: inline-block; width: 0.7em; height: 0.7em; margin-right: 0.35em; border-radius: 2px; }
@media (max-width: 560px) { body { font-size: 15px; } th, td { padding-right: 8px; font-size: 0.85rem; } .headline small { display: block; } }
@media print { main { max-width: none; } figure, table { break-inside: avoid; } }
)";

}  // namespace

std::string html_page(const std::string& title, const std::string& subtitle, const std::string& body) {
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, "
      "initial-scale=1\">\n<title>{0}</title>\n<style>{1}</style>\n"
      "</head>\n<body>\n<main>\n<h1>{0}</h1>\n<p class=\"subtitle\">{2}</p>\n{3}"
      "<p class=\"subtitle\">Written by tandem {4} ({5}).</p>\n</main>\n</body>\n</html>\n",
      escape_markup(title), style, escape_markup(subtitle), body, version(), commit());
}

std::string replace_all(std::string text, const std::string& from, const std::string& to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size())
    text.replace(at, from.size(), to);
  return text;
}

std::string with_minus_signs(const std::string& text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool starts = i == 0 || text[i - 1] == ' ' || text[i - 1] == '[';
    const bool number = i + 1 < text.size() && text[i + 1] >= '0' && text[i + 1] <= '9';
    out += text[i] == '-' && starts && number ? "&minus;" : std::string(1, text[i]);
  }
  return out;
}

std::string row_html(const std::vector<std::string>& cells, const char* tag) {
  std::string out = "<tr>";
  for (const auto& cell : cells) out += fmt::format("<{}>{}</{}>", tag, cell, tag);
  return out + "</tr>\n";
}

std::string list_html(const std::vector<std::string>& sentences) {
  std::string out = "<ul>\n";
  for (const auto& sentence : sentences)
    out += "<li>" + replace_all(escape_markup(sentence), "+-", "&plusmn;") + "</li>\n";
  return out + "</ul>\n";
}

std::string facts_html(const Facts& facts) {
  std::string out = "<table class=\"facts\">\n";
  for (const auto& [name, value] : facts) out += row_html({escape_markup(name), escape_markup(value)});
  return out + "</table>\n";
}

std::string figure(const std::string& caption, const std::string& svg) {
  return "<figure>\n<figcaption>" + escape_markup(caption) + "</figcaption>\n" + svg + "</figure>\n";
}

}  // namespace tandem
