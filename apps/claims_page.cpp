#include "claims_page.h"

#include <fmt/format.h>

#include "html.h"

namespace tandem {
namespace {

std::string claim_html(const Claim& claim) {
  const auto text = [](const std::string& plain) {
    return with_minus_signs(replace_all(replace_all(escape_markup(plain), "+-", "&plusmn;"), "-&gt;", "&rarr;"));
  };
  std::string out = fmt::format("<h2 id=\"{0}\">{0}: {1}</h2>\n", claim.id, name_of(claim.verdict));
  out += fmt::format("<p><strong>{}</strong></p>\n<p>{}</p>\n<p>{}</p>\n", text(claim.statement), text(claim.measured),
                     text(claim.why));
  out += "<div class=\"wide\"><table class=\"text\">\n";
  for (const Measurement& m : claim.measurements) out += row_html({text(m.what), text(m.shown)});
  out += "</table></div>\n";
  if (claim.pictures.empty()) return out;
  out += "<div class=\"figures\">\n";
  for (const Picture& picture : claim.pictures) out += figure(picture.caption, to_svg(picture.plot));
  return out + "</div>\n";
}

}  // namespace

std::string claims_page(const std::vector<Claim>& claims, const std::string& dataset, bool fast) {
  std::string body =
      "<p>Each verdict follows by a rule from what this program measured; intervals are 95&nbsp;% intervals of the "
      "mean "
      "over seeds.</p>\n<div class=\"wide\"><table class=\"text\">\n";
  for (const Claim& claim : claims)
    body += row_html({fmt::format("<a href=\"#{0}\">{0}</a>", claim.id), escape_markup(claim.statement),
                      fmt::format("<strong>{}</strong>", name_of(claim.verdict))});
  body += "</table></div>\n";
  for (const Claim& claim : claims) body += claim_html(claim);
  const std::string trained = dataset.empty() ? "no networks were trained" : "networks trained on " + dataset;
  return html_page("What is taught about batch norm, and what is measured",
                   trained + (fast ? ", the short form: fewer seeds and steps" : ""), body);
}

}  // namespace tandem
