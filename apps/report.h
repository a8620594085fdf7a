// A comparison as one HTML page that needs nothing else: style and pictures are inside, there is no script.
#pragma once

#include <string>

#include "compare.h"
#include "html.h"

namespace tandem {

std::string report_html(const Comparison& comparison, const Facts& settings, const Facts& environment);

}  // namespace tandem
