// A comparison as one HTML page that needs nothing else: style and pictures are inside, there is no script.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "compare.h"

namespace tandem {

// Names and values for the page's tables of settings and environment.
using Facts = std::vector<std::pair<std::string, std::string>>;

std::string report_html(const Comparison& comparison, const Facts& settings, const Facts& environment);

}  // namespace tandem
