#include "findings.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>

namespace tandem {

namespace {

using Value = std::function<std::optional<double>(const ArmRun&)>;

// A value that rounds to zero is shown without a sign.
std::string shown_signed(const Quantity& q, double value) {
  const std::string text = shown(q, value);
  return text[0] == '-' || text.find_first_not_of("0.") == std::string::npos ? text : "+" + text;
}

std::string interval(const Quantity& q) {
  return fmt::format("[{}, {}]", shown_signed(q, *q.paired.low), shown_signed(q, *q.paired.high));
}
const char* direction(const Quantity& q) { return q.better == Better::lower ? "lower" : "higher"; }

const Quantity& find(const std::vector<Quantity>& all, const std::string& key) {
  return *std::find_if(all.begin(), all.end(), [&](const Quantity& q) { return q.key == key; });
}

// "fewer steps in 3 of 5 seeds, the same in 1, more in 1"; `sooner` and `later` are such words.
std::string count_of_seeds(const Quantity& q, const std::string& sooner, const std::string& later) {
  std::string text = fmt::format("{} in {} of {} seeds", sooner, q.paired.better, q.paired.pairs);
  if (q.paired.tied) text += fmt::format(", the same in {}", q.paired.tied);
  if (q.paired.worse) text += fmt::format(", {} in {}", later, q.paired.worse);
  if (q.paired.neither) text += fmt::format(", neither has a value in {}", q.paired.neither);
  return text;
}

// What the interval of the mean difference says.
std::string interval_sentence(const Quantity& q, const std::string& unit) {
  if (!q.paired.mean) {
    const int runs = q.first_summary.runs + q.second_summary.runs;
    const int missing = runs - q.first_summary.present - q.second_summary.present;
    return fmt::format("No mean difference is given: {} of {} runs have no value", missing, runs);
  }
  const std::string value = shown_signed(q, *q.paired.mean) + unit, mean = "The mean difference is " + value;
  if (q.paired.low)
    return fmt::format("{}, 95 % interval {}, which {}", mean, interval(q),
                       q.paired.excludes_zero() ? "excludes 0" : "includes 0: these seeds do not show a difference");
  if (q.resolution == 0) return "The difference is " + value + " in every seed";
  return fmt::format("{}, known to within {}{} and so too coarsely for an interval", mean, shown(q, q.resolution),
                     unit);
}

double seconds_per_step(const Comparison& comparison) {
  double seconds = 0, steps = 0;
  for (const SeedPair& pair : comparison.pairs)
    for (const ArmRun& run : pair.runs) seconds += run.seconds, steps += double(run.steps);
  return steps > 0 ? seconds / steps : 0;
}

// Had every run of an arm reached the target by its first validation?
bool there_at_once(const Comparison& comparison, int arm, double target) {
  return std::all_of(comparison.pairs.begin(), comparison.pairs.end(), [&](const SeedPair& pair) {
    const CurvePoint* point = first_reaching(pair.runs[arm], target);
    return point && point == pair.runs[arm].curve.data();
  });
}

// The highest target that any run reached.
std::optional<int> highest_target(const Comparison& comparison) {
  for (size_t i = compare_targets.size(); i-- > 0;)
    for (const SeedPair& pair : comparison.pairs)
      for (const ArmRun& run : pair.runs)
        if (first_reaching(run, compare_targets[i])) return int(100 * compare_targets[i] + 0.5);
  return std::nullopt;
}

std::vector<std::string> null_findings(const Comparison& comparison) {
  const std::string what =
      fmt::format("{} pairs of runs of one network, each pair from one seed", comparison.pairs.size());
  if (*comparison.aa_difference == 0)
    return {fmt::format("A/A: over {}, every loss, accuracy and final weight agreed: difference exactly 0.", what)};
  return {
      fmt::format("A/A: over {}, losses, accuracies or weights differed by up to {:g}. They must agree exactly; "
                  "no comparison made by this build can be trusted.",
                  what, *comparison.aa_difference)};
}

std::vector<std::string> divergence_findings(const Comparison& comparison) {
  std::vector<std::string> sentences;
  for (int i = 0; i < 2; ++i) {
    const auto diverged = std::count_if(comparison.pairs.begin(), comparison.pairs.end(),
                                        [&](const SeedPair& pair) { return pair.runs[i].diverged; });
    if (diverged)
      sentences.push_back(fmt::format("{} diverged in {} of {} seeds; those runs count as worse than any other.",
                                      i == 0 ? "Plain" : "Batch norm", diverged, comparison.pairs.size()));
  }
  return sentences;
}

}  // namespace

std::vector<Quantity> quantities(const Comparison& comparison) {
  std::vector<Quantity> all;
  auto add = [&](const std::string& key, const std::string& label, Better better, int decimals, double scale,
                 const Value& value, double resolution = 0) {
    Quantity q{key, label, better, decimals, scale, resolution, {}, {}, {}, {}, {}};
    for (const SeedPair& pair : comparison.pairs) {
      q.first.push_back(value(pair.runs[0]));
      q.second.push_back(value(pair.runs[1]));
    }
    q.first_summary = summarize(q.first, better);
    q.second_summary = summarize(q.second, better);
    q.paired = compare_pairs(q.first, q.second, better, resolution);
    all.push_back(std::move(q));
  };
  const double seconds_apart = double(comparison.eval_every) * seconds_per_step(comparison);
  for (const bool steps : {true, false}) {
    for (double target : compare_targets) {
      const int percent = int(100 * target + 0.5);
      const char* what = steps ? "steps" : "seconds";
      add(
          fmt::format("{}_to_{}", what, percent), fmt::format("{} to {} %", what, percent), Better::lower,
          steps ? 0 : 2, 1,
          [=](const ArmRun& run) -> std::optional<double> {
            const CurvePoint* point = first_reaching(run, target);
            if (!point) return std::nullopt;
            return steps ? double(point->step) : point->seconds;
          },
          steps ? double(comparison.eval_every) : seconds_apart);
      all.back().first_at_once = there_at_once(comparison, 0, target);
      all.back().second_at_once = there_at_once(comparison, 1, target);
    }
  }
  auto add_accuracy = [&](const char* key, const char* label, std::optional<double> ArmRun::*accuracy) {
    add(key, label, Better::higher, 2, 100, [=](const ArmRun& run) { return run.*accuracy; });
  };
  add_accuracy("train_accuracy", "train accuracy %", &ArmRun::train_accuracy);
  add_accuracy("validation_accuracy", "validation acc. %", &ArmRun::validation_accuracy);
  add_accuracy("test_accuracy", "test accuracy %", &ArmRun::test_accuracy);
  add("seconds", "seconds", Better::lower, 2, 1,
      [](const ArmRun& run) { return run.diverged ? std::nullopt : std::optional(run.seconds); });
  return all;
}

// A value that rounds to zero is shown without a sign.
std::string shown(const Quantity& q, double value) {
  const std::string text = fmt::format("{:.{}f}", q.scale * value, q.decimals);
  return text.find_first_not_of("-0.") == std::string::npos && text[0] == '-' ? text.substr(1) : text;
}

std::string arm_cell(const Quantity& q, int arm) {
  const Summary& summary = arm == 0 ? q.first_summary : q.second_summary;
  if (summary.mean && (arm == 0 ? q.first_at_once : q.second_at_once)) return "<= " + shown(q, *summary.mean);
  if (summary.mean && summary.sd) return shown(q, *summary.mean) + " +- " + shown(q, *summary.sd);
  if (summary.mean) return shown(q, *summary.mean);
  if (!summary.median)
    return fmt::format("{} {} of {}", summary.present ? "only" : "never:", summary.present, summary.runs);
  return fmt::format("med {} ({} of {})", shown(q, *summary.median), summary.present, summary.runs);
}

std::string difference_cell(const Quantity& q) {
  if (q.paired.low) return shown_signed(q, *q.paired.mean) + " " + interval(q);
  if (q.paired.sd && q.resolution > 0)
    return fmt::format("{} (+-{})", shown_signed(q, *q.paired.mean), shown(q, q.resolution));
  if (q.paired.mean) return shown_signed(q, *q.paired.mean);
  if (q.paired.neither == q.paired.pairs) return "none";
  return fmt::format("{} in {} of {}", direction(q), q.paired.better, q.paired.pairs);
}

std::vector<std::string> findings(const Comparison& comparison) {
  if (comparison.pairs.empty()) return {"No seed finished, so there is nothing to report."};
  if (comparison.settings.is_null()) return null_findings(comparison);
  std::vector<std::string> sentences = divergence_findings(comparison);
  if (comparison.pairs.size() == 1) {
    sentences.push_back("One seed has no spread: these numbers support no claim. Use at least five (--seeds 1..5).");
    return sentences;
  }
  const auto all = quantities(comparison);
  if (const auto target = highest_target(comparison)) {
    const Quantity& steps = find(all, fmt::format("steps_to_{}", *target));
    sentences.push_back(fmt::format("Batch norm reached {} % validation accuracy in {}. {}.", *target,
                                    count_of_seeds(steps, "fewer steps", "more"), interval_sentence(steps, " steps")));
    const Quantity& seconds = find(all, fmt::format("seconds_to_{}", *target));
    sentences.push_back(fmt::format("By the clock it got there {}. {}.", count_of_seeds(seconds, "sooner", "later"),
                                    interval_sentence(seconds, " s")));
  } else {
    sentences.push_back(fmt::format("No run reached {:.0f} % validation accuracy.", 100 * compare_targets[0]));
  }
  const Quantity& test = find(all, "test_accuracy");
  sentences.push_back(fmt::format("With batch norm, test accuracy was {}. {}.", count_of_seeds(test, "higher", "lower"),
                                  interval_sentence(test, " percentage points")));
  if (comparison.pairs.size() < 5)
    sentences.push_back(fmt::format("{} seeds are few: an interval from so small a sample is wide and uncertain.",
                                    comparison.pairs.size()));
  return sentences;
}

std::vector<std::string> methods(const Comparison& comparison) {
  std::vector<std::string> sentences = {
      fmt::format("Per seed both arms start from the same values in every tensor they share and see the same batches "
                  "in the same order; the hashes prove it and are compared before training."),
      fmt::format("Validation accuracy is measured every {} steps on {} images that are not trained on; a step count "
                  "is the first such measurement at or above the target, so it is known to within {} steps.",
                  comparison.eval_every, comparison.validation_count, comparison.eval_every),
      "Spread: +- is the standard deviation over seeds. Differences are taken seed by seed; [low, high] is the 95 % "
      "interval of their mean by Student's t, which takes the differences to be roughly normal. Steps and seconds to a "
      "target are known to the next measurement alone: where the differences vary by less than that, (+-) says how far "
      "it is and no interval is given; <= stands where every run was there by its first measurement.",
      "A run that never reaches a target, or diverges, is not dropped: it counts as worse than any that did. Then no "
      "mean is given but the median over all runs (med) and how many have a value.",
      std::string("Seconds count training steps alone, without evaluations. ") +
          (comparison.parallel_arms
               ? "Both arms ran at the same time, one thread each, so each felt the other's use of the machine."
               : "The arms ran one after the other, on one thread."),
      fmt::format("The {} test images are read once, at the end; nothing is chosen by them.", comparison.test_count)};
  if (comparison.settings.is_null())
    sentences.push_back(fmt::format(
        "A/A difference: the largest over all losses, accuracies and final weights of both runs, {} steps each.",
        comparison.aa_steps));
  else if (comparison.aa_difference)
    sentences.push_back(fmt::format(
        "A/A check before the comparison: two runs of {} steps of each arm from one seed differed by {:g} in "
        "losses, accuracies and weights.",
        comparison.aa_steps, *comparison.aa_difference));
  return sentences;
}

std::vector<std::string> limits(const Comparison& comparison) {
  if (comparison.settings.is_null())
    return {
        "An A/A run says nothing about batch norm. It shows that the instrument itself adds no difference, on this "
        "machine and with this build."};
  return {"It does not show why: nothing here measures internal covariate shift, smoothness or gradients.",
          "It compares the arms at one learning rate, the same for both. With a rate tuned for each arm the difference "
          "may be smaller or reversed.",
          "It holds for this network, data set, batch size and number of steps, and says nothing about "
          "others.",
          "The intervals describe variation over seeds, not over data sets, and each is at 95 % on its own: of many "
          "quantities, some will exclude 0 by chance."};
}

}  // namespace tandem
