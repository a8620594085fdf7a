// The claims about momentum and running statistics.
#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "claims_probe.h"
#include "tandem/core/autograd.h"
#include "tandem/core/ops.h"

namespace tandem {
namespace {

constexpr double kBatchMean = 8;

// The running mean after each of `steps` training batches of mean 8, from 0.
Values followed_mean(const NormMaker& norm, const BatchNormLayerOptions& options, int steps) {
  auto layer = norm(1, float64_options(options));
  const Tensor x = Tensor::from(Values{kBatchMean - 1, kBatchMean + 1}, {2, 1});
  Values means;
  for (int i = 0; i < steps; ++i) {
    (*layer)(x);
    const Values mean = state_of(*layer, "running_mean");
    means.push_back(mean.empty() ? NAN : mean[0]);
  }
  return means;
}

// Batches until the running mean has gone half and 99 % of the way, if each keeps `kept` of the distance.
std::string pace(double kept) {
  if (kept <= 0) return "there after one batch";
  if (kept >= 1) return "never moves";
  const auto batches = [&](double share) { return std::ceil(std::log(1 - share) / std::log(kept) - 1e-9); };
  return fmt::format("half way after {}, 99 % after {}", batches(0.5), batches(0.99));
}

LinePlot momentum_curves(const NormMaker& norm) {
  LinePlot plot;
  plot.description = "Running mean against training batches for both conventions of momentum";
  plot.x_label = "training batches, each of mean 8";
  plot.y_label = "running mean";
  plot.guides = {kBatchMean};
  constexpr int steps = 60;
  Values x(steps);
  std::iota(x.begin(), x.end(), 1.0);
  for (const double keras : {0.1, 0.9}) {  // and PyTorch's complement, dashed, on the same curve
    const double pytorch = 1 - keras;
    plot.lines.push_back({fmt::format("Keras {:.1f} = PyTorch {:.1f}", keras, pytorch), colour_first, x,
                          followed_mean(norm, BatchNormLayerOptions::keras(keras), steps), 1 + 2 * keras});
    plot.lines.push_back({"", colour_second, x, followed_mean(norm, {.momentum = Momentum::pytorch(pytorch)}, steps),
                          1 + 2 * keras, 1, true});
  }
  return plot;
}

// What both pages' statements on momentum share. Rule: over rising momenta the running mean after three batches
// falls (`slower`) or rises strictly: holds; the other way round: refuted; neither: inconclusive.
Claim momentum_claim(Claim claim, const NormMaker& norm, bool keras) {
  const Values momenta = keras ? Values{0, 0.5, 0.9, 0.99, 1} : Values{0, 0.01, 0.1, 0.5, 1};
  Values after;
  double error = 0;
  std::string list;
  for (const double m : momenta) {
    const double kept = keras ? m : 1 - m;
    const auto options =
        keras ? BatchNormLayerOptions::keras(m) : BatchNormLayerOptions{.momentum = Momentum::pytorch(m)};
    after.push_back(followed_mean(norm, options, 3).back());
    error = std::max(error, largest_difference(Values{after.back()}, Values{kBatchMean * (1 - std::pow(kept, 3))}));
    list += fmt::format("{}{} -> {:.4g}", list.empty() ? "" : ", ", m, after.back());
    claim.measurements.push_back({fmt::format("running mean after 3 batches, momentum {}", m), after.back(),
                                  fmt::format("{:.4f}; {}", after.back(), pace(kept))});
  }
  claim.measurements.push_back({"largest difference from the formula", error, fmt::format("{:.1e}", error)});
  auto eval = norm(1, float64_options(keras ? BatchNormLayerOptions::keras() : BatchNormLayerOptions{}));
  const Values before = state_of(*eval, "running_mean");
  eval->eval();
  (*eval)(normal({4, 1}, "claims/momentum"));
  const bool ignored = largest_difference(before, state_of(*eval, "running_mean")) == 0;
  claim.measurements.push_back({"eval leaves the running mean alone", double(ignored), yes_no(ignored)});

  const bool known = std::all_of(after.begin(), after.end(), [](double v) { return std::isfinite(v); });
  const bool falls = known && std::adjacent_find(after.begin(), after.end(), std::less_equal<>()) == after.end();
  const bool rises = known && std::adjacent_find(after.begin(), after.end(), std::greater_equal<>()) == after.end();
  claim.measured =
      fmt::format("After three batches of mean {} the running mean, from 0: momentum {}.", kBatchMean, list);
  claim.verdict = (keras ? falls : rises)   ? Verdict::holds
                  : (keras ? rises : falls) ? Verdict::refuted
                                            : Verdict::inconclusive;
  const char* formula =
      keras ? "new = momentum old + (1 - momentum) batch" : "new = (1 - momentum) old + momentum batch";
  if (claim.verdict == Verdict::holds) {
    claim.why = fmt::format(
        "In {} momentum is the weight of the {} value ({}), so a higher one makes the statistics follow {}. The other "
        "page says the opposite of the same word: {} number is 1 minus this one.",
        keras ? "Keras" : "PyTorch", keras ? "old" : "new", formula, keras ? "more slowly" : "faster",
        keras ? "PyTorch's" : "Keras'");
    if (keras && ignored)
      claim.why += " That it plays no part in inference is also true, another of the page's answers.";
  } else {
    claim.why = fmt::format("The running mean did not follow {}.", formula);
  }
  claim.pictures.push_back(
      {"Both conventions: Keras' solid, PyTorch's complement dashed over it.", momentum_curves(norm)});
  return claim;
}

}  // namespace

Claim claim_tf3_keras_momentum(const NormMaker& norm) {
  return momentum_claim({"TF3", "Keras' momentum: the higher, the slower the moving statistics change."}, norm, true);
}

Claim claim_pt3_pytorch_momentum(const NormMaker& norm) {
  return momentum_claim({"PT3", "PyTorch's momentum: the higher, the faster the running statistics change."}, norm,
                        false);
}

namespace {

// A distribution whose mean moves from 0 to 5 half-way, and what the running mean makes of it.
LinePlot moving_distribution(const NormMaker& norm) {
  LinePlot plot;
  plot.description = "Batch mean and running mean while the distribution moves from mean 0 to mean 5";
  plot.x_label = "training batches of 32";
  plot.y_label = "mean";
  constexpr int steps = 120;
  Line batches{"batch mean", colour_neutral, {}, {}, 1, 0.5};
  Line running[] = {{"running mean, PyTorch 0.1", colour_second, {}, {}, 2.5},
                    {"running mean, PyTorch 0.01", colour_first, {}, {}, 2.5, 1, true}};
  std::unique_ptr<Module> layers[] = {norm(1, float64_options({.momentum = Momentum::pytorch(0.1)})),
                                      norm(1, float64_options({.momentum = Momentum::pytorch(0.01)}))};
  for (int step = 1; step <= steps; ++step) {
    const Tensor x = normal({32, 1}, fmt::format("claims/moving/{}", step), step > steps / 2 ? 5 : 0, 2);
    const Values drawn = values_of(x);
    batches.x.push_back(step);
    batches.y.push_back(std::accumulate(drawn.begin(), drawn.end(), 0.0) / double(drawn.size()));
    for (int i = 0; i < 2; ++i) {
      (*layers[i])(x);
      const Values mean = state_of(*layers[i], "running_mean");
      running[i].x.push_back(step);
      running[i].y.push_back(mean.empty() ? NAN : mean[0]);
    }
  }
  plot.lines = {batches, running[0], running[1]};
  return plot;
}

}  // namespace

// Rule: in eval a row's output does not depend on the rows beside it and no statistic changes; in training the output
// does not depend on the statistics; and they come to the mean and unbiased variance of the data: holds. If it is the
// biased variance, too small by (n - 1) / n: holds with nuance. If anything else fails: refuted.
Claim claim_pt2_running_statistics(const NormMaker& norm) {
  Claim claim{"PT2", "The running mean and variance serve evaluation: there they stand in for the batch's."};
  const int64_t channels = 4;
  auto layer = norm(channels, float64_options());
  constexpr int batches = 200, rows = 64;
  constexpr double mean = 5, std = 3;
  for (int i = 0; i < batches; ++i) (*layer)(normal({rows, channels}, fmt::format("claims/running/{}", i), mean, std));
  double mean_off = 0, variance_off = 0;
  const Values running_mean = state_of(*layer, "running_mean"), running_var = state_of(*layer, "running_var");
  for (const double v : running_mean) mean_off = std::max(mean_off, std::abs(v - mean) / std);
  for (const double v : running_var) variance_off = std::max(variance_off, std::abs(v / (std * std) - 1));

  layer->eval();
  const Tensor x = normal({8, channels}, "claims/eval", mean, std);
  const std::vector<Values> before = whole_state(*layer);
  const Tensor together = (*layer)(x), alone = (*layer)(slice(x, 0, 2, 3));
  const double company = largest_difference(slice(together, 0, 2, 3), alone);
  const bool untouched = whole_state(*layer) == before;
  layer->train();
  auto fresh = norm(channels, float64_options());
  const double dependence = largest_difference((*layer)(x), (*fresh)(x));

  // With the weight of the new at 1 the statistics are the last batch's: n = 2 tells the variances apart best.
  auto two = norm(1, float64_options({.momentum = Momentum::pytorch(1)}));
  {
    const NoGrad no_grad;  // statistics move with gradients off as well
    (*two)(Tensor::from(Values{1, 4}, {2, 1}));
  }
  const Values kept = state_of(*two, "running_var");
  const double ratio = kept.empty() ? NAN : kept[0] / 4.5;

  claim.measurements = {{"eval: one row alone and among 8 differ by", company, fmt::format("{:.1e}", company)},
                        {"eval leaves every statistic and counter alone", double(untouched), yes_no(untouched)},
                        {"training: outputs with and without earlier statistics differ by", dependence,
                         fmt::format("{:.1e}", dependence)},
                        {"running mean after 200 batches, off the true one by (standard deviations)", mean_off,
                         fmt::format("{:.2f}", mean_off)},
                        {"running variance after 200 batches, off the true one by (share)", variance_off,
                         fmt::format("{:.2f}", variance_off)},
                        {"running over unbiased variance of a batch of two", ratio, fmt::format("{:.3f}", ratio)}};
  const bool unbiased = std::abs(ratio - 1) < 1e-6, biased = std::abs(ratio - 0.5) < 1e-6;
  const bool serves =
      company == 0 && untouched && dependence == 0 && mean_off < 0.5 && variance_off < 0.6 && (unbiased || biased);
  claim.verdict = !serves ? Verdict::refuted : unbiased ? Verdict::holds : Verdict::holds_with_nuance;
  claim.measured = fmt::format(
      "In eval a row's output is the same alone and among eight {}, and {}; in training the output is the same with "
      "and "
      "without earlier statistics {}. After {} batches of {} the mean is {:.2f} standard deviations off, the variance "
      "{:.0f} %.",
      within(company), untouched ? "no statistic changes" : "statistics change", within(dependence), batches, rows,
      mean_off, 100 * variance_off);
  claim.why = claim.verdict == Verdict::refuted
                  ? "The running statistics do not stand in for the data's."
                  : fmt::format(
                        "Training normalises with the batch's own biased variance; what eval uses is the running "
                        "average of the {} one{}.",
                        unbiased ? "unbiased" : "biased",
                        unbiased ? ", so on one and the same batch of two the two differ by a factor of 0.71"
                                 : ", which is too small by (n - 1) / n: by half for batches of two");
  claim.pictures.push_back(
      {"Running statistics follow a distribution that moves; the smaller the weight of the new, the "
       "later.",
       moving_distribution(norm)});
  return claim;
}

}  // namespace tandem
