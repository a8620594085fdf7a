// What a comparison's numbers support: its quantities with their spread, and sentences made from them by rule.
#pragma once

#include <string>
#include <vector>

#include "compare.h"
#include "statistics.h"

namespace tandem {

// One quantity over all seeds, both arms and their difference.
struct Quantity {
  std::string key;    // in JSON: "steps_to_90", "test_accuracy"
  std::string label;  // "steps to 90 %", "test accuracy %"
  Better better;
  int decimals;           // shown
  double scale = 1;       // shown values are these times scale: accuracies are fractions, shown in percent
  double resolution = 0;  // of values that are known to the next validation alone: how far that may be
  Sample first, second;
  Summary first_summary, second_summary;
  Paired paired;                                       // second minus first
  bool first_at_once = false, second_at_once = false;  // every run was there by its first validation
};
// In the order of the table.
std::vector<Quantity> quantities(const Comparison& comparison);

// A value as it is shown.
std::string shown(const Quantity& quantity, double value);

// Cells of the table, of arm 0 or 1: "820 +- 110", "820" from one seed; "<= 100" if every run was there by its first
// validation; "med 1200 (3 of 5)", "only 1 of 5", "never: 0 of 5" where runs lack a value. And "-390 [-520, -260]",
// "-390" from one seed, "-120 (+-100)" where that is the resolution and the seeds differ by less, "lower in 4 of 5".
std::string arm_cell(const Quantity& quantity, int arm);
std::string difference_cell(const Quantity& quantity);

// What the numbers support, a sentence each. One seed supports nothing, and the sentence says so.
std::vector<std::string> findings(const Comparison& comparison);
// How the numbers were come by, and what they do not show, a sentence each.
std::vector<std::string> methods(const Comparison& comparison);
std::vector<std::string> limits(const Comparison& comparison);

}  // namespace tandem
