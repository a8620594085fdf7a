// A comparison as JSON: what RESULT.json and --json hold.
#pragma once

#include <nlohmann/json_fwd.hpp>

#include "compare.h"

namespace tandem {

// Settings, hashes, every run with its curve, the summary of every quantity and the findings. Accuracies are
// fractions; values that are missing are null.
nlohmann::ordered_json to_json(const Comparison& comparison);

}  // namespace tandem
