// The claims about one layer's results: shapes, batches of one, the worked example, refusals, sequences.
#include <fmt/format.h>

#include <algorithm>

#include "claims_probe.h"
#include "tandem/core/ops.h"

namespace tandem {

std::unique_ptr<Module> make_batch_norm(int64_t channels, const BatchNormLayerOptions& options) {
  return std::make_unique<BatchNorm>(channels, options);
}

// Rule: the shape is kept in all cases: holds; in none: refuted.
Claim claim_tf2_shape(const NormMaker& norm) {
  Claim claim{"TF2", "Batch norm keeps the shape: [32, 28, 28, 3] goes in, the same comes out."};
  struct Case {
    Shape x;
    int axis;
  };
  const Case cases[] = {{{32, 28, 28, 3}, -1}, {{32, 3, 28, 28}, 1}, {{32, 3}, -1},
                        {{8, 5, 3}, -1},       {{8, 3, 5}, 1},       {{2, 4, 4, 4, 3}, -1}};
  int kept = 0, tried = 0;
  int64_t numbers = 0;
  for (const Case& c : cases) {
    auto layer = norm(3, float64_options({.channel_axis = c.axis}));
    for (const bool training : {true, false}) {
      layer->train(training);
      const Shape y = (*layer)(normal(c.x, "claims/shape")).shape();
      kept += y == c.x;
      ++tried;
      claim.measurements.push_back({fmt::format("{} keeps {}{}", training ? "training" : "eval", to_string(c.x),
                                                c.axis == 1 ? ", channels first" : ""),
                                    double(y == c.x), fmt::format("{}", to_string(y))});
    }
    numbers = 0;
    for (const char* name : {"weight", "bias", "running_mean", "running_var"})
      numbers += static_cast<int64_t>(state_of(*layer, name).size());
  }
  claim.measurements.push_back({"numbers held for 3 channels", double(numbers), fmt::format("{}", numbers)});
  claim.measured = fmt::format(
      "The shape came out as it went in in {} of {} cases (2 to 5 axes, channels last and first, training and eval). "
      "For 3 channels the layer holds {} numbers: gamma, beta, running mean and variance.",
      kept, tried, numbers);
  claim.verdict = all_or_none(kept, tried);
  claim.why = claim.verdict == Verdict::holds ? "Every value is shifted and scaled where it stands."
                                              : "The shape changed where it should not.";
  return claim;
}
// Rule: one row raises under Keras' convention, in inference (as the page calls it) or in training: holds; it does not,
// but a result is not finite (a division by zero): holds with nuance; neither: refuted.
Claim claim_tf4_batch_of_one(const NormMaker& norm) {
  Claim claim{"TF4", "In Keras a batch of one raises an error: the variance is zero, and is divided by."};
  const Tensor x = normal({1, 10}, "claims/one");
  auto keras = norm(10, float64_options(BatchNormLayerOptions::keras()));
  keras->eval();
  double from_formula = INFINITY;
  const std::string eval_error = refusal([&] {
    const Values y = values_of((*keras)(x)), in = values_of(x);
    Values expected;
    for (const double v : in) expected.push_back(v / std::sqrt(1 + 1e-3));
    from_formula = largest_difference(y, expected);
  });
  keras->train();
  double from_beta = INFINITY, moving_variance = NAN;
  const std::string train_error = refusal([&] {
    from_beta = largest_difference(values_of((*keras)(x)), Values(10, 0.0));
    const Values variance = state_of(*keras, "running_var");
    if (!variance.empty()) moving_variance = variance[0];
  });
  auto torch = norm(10, float64_options());
  const std::string torch_error = refusal([&] { (*torch)(x); });
  auto torch_image = norm(10, float64_options());
  const std::string image_error = refusal([&] { (*torch_image)(normal({1, 4, 4, 10}, "claims/image")); });

  auto outcome = [](const std::string& error, double off) {
    return !error.empty()       ? "error: " + error
           : std::isfinite(off) ? std::string("no error")
                                : "no error, but not finite";
  };
  claim.measurements = {
      {"Keras' numbers, inference (the page's call): largest difference from x / sqrt(1.001)", from_formula,
       fmt::format("{:.1e}, {}", from_formula, outcome(eval_error, from_formula))},
      {"Keras' numbers, training: largest difference from beta", from_beta,
       fmt::format("{:.1e}, {}", from_beta, outcome(train_error, from_beta))},
      {"moving variance after that batch (1 before)", moving_variance, fmt::format("{:.4g}", moving_variance)},
      {"PyTorch's numbers, training on [1, 10]: raised", double(!torch_error.empty()), outcome(torch_error, 0)},
      {"PyTorch's numbers, training on one image [1, 4, 4, 10]: raised", double(!image_error.empty()),
       outcome(image_error, 0)}};
  const bool finite = std::isfinite(from_formula) && std::isfinite(from_beta);
  claim.verdict = !train_error.empty() || !eval_error.empty() ? Verdict::holds
                  : !finite                                   ? Verdict::holds_with_nuance
                                                              : Verdict::refuted;
  if (claim.verdict == Verdict::holds) {
    claim.measured = "With Keras' numbers one row raised: " + (eval_error.empty() ? train_error : eval_error);
    claim.why = "The layer refuses a batch whose variance says nothing.";
    return claim;
  }
  claim.measured = fmt::format(
      "With Keras' numbers one row goes through: in inference as x / sqrt(1.001) {}, in training as beta {}.",
      within(from_formula), within(from_beta));
  if (claim.verdict == Verdict::holds_with_nuance) {
    claim.why = "Nothing is raised, but the variance of one value is 0, and nothing keeps it from being divided by.";
    return claim;
  }
  claim.why =
      "eps is added to the variance before anything is divided by it, and the page's call, without training=True, is "
      "inference.";
  if (!torch_error.empty())
    claim.why += fmt::format(" It is under PyTorch's convention that training on one row raises{}.",
                             image_error.empty() ? "; an image of 4 x 4 pixels does not" : "");
  return claim;
}

// Rule: the largest output is within 1e-3 of 1.2247: holds; else refuted.
Claim claim_pt1_worked_example(const NormMaker& norm) {
  Claim claim{"PT1", "BatchNorm1d of [[1, 2, 3], [4, 5, 6]] gives about -1.2247 and +1.2247."};
  constexpr double said = 1.2247;
  const Tensor x = Tensor::from(Values{1, 2, 3, 4, 5, 6}, {2, 3});
  auto layer = norm(3, float64_options());
  const Values y = values_of((*layer)(x));
  auto keras = norm(3, float64_options(BatchNormLayerOptions::keras()));
  const double keras_value = values_of((*keras)(x))[5];
  const double got = y[5], unbiased = 1.5 / std::sqrt(4.5), row = values_of(layer_norm(x, {3}))[2];
  const Values mean = state_of(*layer, "running_mean"), variance = state_of(*layer, "running_var");
  claim.measurements = {{"output, PyTorch's numbers", got, fmt::format("+-{:.7f}", got)},
                        {"output, Keras' numbers (eps 1e-3)", keras_value, fmt::format("+-{:.7f}", keras_value)},
                        {"output if the unbiased variance 4.5 of the page's own reason were used", unbiased,
                         fmt::format("+-{:.4f}", unbiased)},
                        {"layer norm of a row", row, fmt::format("+-{:.4f}", row)}};
  if (!mean.empty())
    claim.measurements.push_back({"running mean of channel 0 afterwards", mean[0], fmt::format("{:.4g}", mean[0])});
  if (!variance.empty())
    claim.measurements.push_back(
        {"running variance of channel 0 afterwards", variance[0], fmt::format("{:.4g}", variance[0])});
  const bool symmetric = y[0] == -y[3] && y[1] == -y[4] && y[2] == -y[5];
  claim.measured = symmetric ? fmt::format("The output is +-{:.7f}.", got)
                             : fmt::format("The output of [1, 4] is {:.7f} and {:.7f}.", y[0], y[3]);
  claim.verdict = symmetric && std::abs(got - said) <= 1e-3 ? Verdict::holds : Verdict::refuted;
  const double expected = 1.5 / std::sqrt(2.25 + 1e-5);
  if (claim.verdict == Verdict::holds) {
    claim.why = "The layer gives what the page says.";
  } else if (symmetric && std::abs(got - expected) < 1e-9) {
    claim.why = fmt::format(
        "Each channel holds two values 3 apart: mean in the middle, biased variance 2.25, so 1.5 / sqrt(2.25 + eps). "
        "With the page's unbiased 4.5 it would be {:.4f}; {:.4f} is what layer norm gives along a row.",
        unbiased, row);
  } else {
    claim.why = fmt::format("That is neither 1.2247 nor what the biased variance gives, {:.7f}.", expected);
  }
  return claim;
}
// Rule: refused in all cases: holds; in none: refuted; else with nuance.
Claim claim_pt4_wrong_channels(const NormMaker& norm) {
  Claim claim{"PT4", "Five channels into BatchNorm2d(3) are a runtime error."};
  const Tensor x = normal({10, 5, 8, 8}, "claims/channels");
  int refused = 0, tried = 0;
  std::string text;
  for (const bool affine : {true, false})
    for (const bool track : {true, false})
      for (const bool training : {true, false}) {
        auto layer = norm(
            3, float64_options({.scale = affine, .shift = affine, .track_running_stats = track, .channel_axis = 1}));
        layer->train(training);
        const std::vector<Values> before = whole_state(*layer);
        const std::string error = refusal([&] { (*layer)(x); });
        const bool untouched = whole_state(*layer) == before;
        refused += !error.empty();
        ++tried;
        if (text.empty()) text = error;
        claim.measurements.push_back(
            {fmt::format("{}, {}, {}: refused", training ? "training" : "eval",
                         affine ? "with gamma and beta" : "without", track ? "with running statistics" : "without"),
             double(!error.empty()), !error.empty() && untouched ? "yes, nothing changed" : yes_no(!error.empty())});
      }
  claim.measured = fmt::format("Refused in {} of {} cases{}", refused, tried, text.empty() ? "." : ": " + text);
  claim.verdict = all_or_none(refused, tried);
  claim.why = claim.verdict == Verdict::holds
                  ? "A layer for 3 channels holds 3 of everything. PyTorch itself takes the 5 silently where the layer "
                    "has neither gamma and beta nor running statistics."
                  : "Some layers took five channels for three.";
  return claim;
}

// Rule: reshaping and normalising along the features agree to 1e-12 (else refuted), and a layer that is told where the
// features are needs no reshape (then with nuance; if it does: holds).
Claim claim_pt5_sequences(const NormMaker& norm) {
  Claim claim{"PT5", "For sequences, reshape [batch, length, features] to [batch * length, features] for BatchNorm1d."};
  constexpr int64_t n = 4, length = 6, features = 3;
  const Tensor x = normal({n, length, features}, "claims/sequence", 1, 2);
  const auto make = [&](int64_t channels, int axis) { return norm(channels, float64_options({.channel_axis = axis})); };
  const Tensor reshaped = (*make(features, -1))(x.reshape({n * length, features})).reshape(x.shape());
  const Tensor first = permute((*make(features, 1))(permute(x, {0, 2, 1})), {0, 2, 1});
  double direct = INFINITY;
  const std::string direct_error = refusal([&] { direct = largest_difference(reshaped, (*make(features, -1))(x)); });
  const double transposed = largest_difference(reshaped, first);

  // The trap: features and length alike, channels looked for in the wrong place.
  const Tensor square = normal({n, features, features}, "claims/square", 1, 2);
  double trap = 0;
  const std::string trap_error =
      refusal([&] { trap = largest_difference((*make(features, -1))(square), (*make(features, 1))(square)); });
  // Padding: the last half of every sequence is zeros that mean nothing.
  auto padded = norm(features, float64_options({.momentum = Momentum::pytorch(1), .channel_axis = -1}));
  (*padded)(concat({x, zeros(x.shape(), {Dtype::float64})}, 1));
  auto bare = norm(features, float64_options({.momentum = Momentum::pytorch(1), .channel_axis = -1}));
  (*bare)(x);
  const Values with = state_of(*padded, "running_mean"), without = state_of(*bare, "running_mean");

  claim.measurements = {
      {"reshaped, and as [N, E, L] with channels on axis 1, differ by", transposed, fmt::format("{:.1e}", transposed)},
      {"reshaped, and as it is with channels last, differ by", direct,
       direct_error.empty() ? fmt::format("{:.1e}", direct) : "error: " + direct_error},
      {"[N, L, E] with L = E and channels on axis 1: silently off by", trap,
       trap_error.empty() ? fmt::format("{:.2f}", trap) : "error: " + trap_error}};
  if (!with.empty() && !without.empty())
    claim.measurements.push_back({"batch mean with half of each sequence padding, over that without",
                                  with[0] / without[0], fmt::format("{:.2f}", with[0] / without[0])});
  const bool agrees = transposed <= 1e-12, needless = direct <= 1e-12;
  claim.verdict = !agrees ? Verdict::refuted : needless ? Verdict::holds_with_nuance : Verdict::holds;
  claim.measured = fmt::format("Reshaped, and with the features on axis 1, the results agree {}{}.", within(transposed),
                               needless ? "; without reshaping, channels last, " + within(direct) : "");
  claim.why =
      !agrees ? "Reshaping gave something else than normalising along the features."
      : needless
          ? "It is one right way, but not needed where the layer can be told that channels are last." +
                (trap_error.empty() && trap > 0
                     ? fmt::format(" Where length and features are alike, the wrong axis is taken without a word "
                                   "(off by {:.1f}).",
                                   trap)
                     : std::string()) +
                " Padding enters the statistics like data."
          : "Each feature is a channel, and all positions of all sequences are its values.";
  return claim;
}

}  // namespace tandem
