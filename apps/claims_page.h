// The claims as one HTML page that needs nothing else.
#pragma once

#include <string>
#include <vector>

#include "claims.h"

namespace tandem {

// `dataset`: what the networks were trained on; empty if none were.
std::string claims_page(const std::vector<Claim>& claims, const std::string& dataset, bool fast);

}  // namespace tandem
