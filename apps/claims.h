// What two quiz pages, one on TensorFlow and one on PyTorch, teach about batch norm: ten statements, each examined
// by running the layer, and networks with and without it. Prints and writes nothing; see claims_command.cpp.
//
// No verdict is written down anywhere: each follows by a rule from what was measured, and another layer in place of
// BatchNorm (a broken one, in the tests) gets other verdicts.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "svg.h"
#include "tandem/layers/batch_norm.h"
#include "trainer.h"

namespace tandem {

enum class Verdict { holds, holds_with_nuance, refuted, inconclusive };
const char* name_of(Verdict verdict);  // "holds", "holds with nuance", "refuted", "inconclusive"

// One number that a verdict rests on, or helps to judge it.
struct Measurement {
  std::string what;
  double value;
  std::string shown;  // the value as text, with its unit and spread
};

struct Picture {
  std::string caption;
  LinePlot plot;
};

struct Claim {
  std::string id;          // "TF1" to "TF5" of the TensorFlow page, "PT1" to "PT5" of the PyTorch page
  std::string statement;   // what the page says
  std::string measured{};  // what was found, in a sentence
  Verdict verdict = Verdict::inconclusive;
  std::string why{};  // the sentence that leads from one to the other
  std::vector<Measurement> measurements{};
  std::vector<Picture> pictures{};
};

// Makes the layer under examination. Its state is read by the names running_mean, running_var,
// num_batches_tracked, weight and bias.
using NormMaker = std::function<std::unique_ptr<Module>(int64_t channels, const BatchNormLayerOptions& options)>;
std::unique_ptr<Module> make_batch_norm(int64_t channels, const BatchNormLayerOptions& options);  // Tandem's own

struct ClaimsSettings {
  std::vector<std::string> ids;  // those to examine, in this order; empty: all ten
  bool fast = false;             // fewer seeds and steps
  int64_t threads = 0;           // 0: the cores this process may use
  NormMaker norm = make_batch_norm;
};

// Of the ten, in the order of the pages.
const std::vector<std::string>& claim_ids();
// Does any of these need data to train on?
bool needs_training(const std::vector<std::string>& ids);

// `on_claim` gets each claim as it is ready; `progress` what is being done; `should_stop` ends training early, and
// the claim that was being examined is left out. Throws ValueError for an unknown id.
struct ClaimsObserver {
  virtual ~ClaimsObserver() = default;
  virtual void on_claim(const Claim&) {}
  virtual void progress(const std::string& /*what*/, int64_t /*done*/, int64_t /*of*/) {}
  virtual bool should_stop() { return false; }
};
std::vector<Claim> examine_claims(const ClaimsSettings& settings, const Splits* data, ClaimsObserver& observer);

// ---- one function a statement ----------------------------------------------------------------------------------
// claims_layer.cpp and claims_statistics.cpp: what one layer does.
Claim claim_tf2_shape(const NormMaker& norm);
Claim claim_tf3_keras_momentum(const NormMaker& norm);
Claim claim_tf4_batch_of_one(const NormMaker& norm);
Claim claim_pt1_worked_example(const NormMaker& norm);
Claim claim_pt2_running_statistics(const NormMaker& norm);
Claim claim_pt3_pytorch_momentum(const NormMaker& norm);
Claim claim_pt4_wrong_channels(const NormMaker& norm);
Claim claim_pt5_sequences(const NormMaker& norm);
// claims_shift.cpp and claims_twins.cpp: what networks do. Empty if stopped.
std::optional<Claim> claim_tf1_covariate_shift(const ClaimsSettings& settings, const Splits& data,
                                               ClaimsObserver& observer);
std::optional<Claim> claim_tf5_faster_and_better(const ClaimsSettings& settings, const Splits& data,
                                                 ClaimsObserver& observer);

// In how many settings an arm is ahead, by the 95 % interval of the difference over seeds.
struct TwinsEvidence {
  int settings = 0;
  int faster = 0, slower = 0;  // to the target; an interval holds what lies between two measurements, and beyond the
                               // last step where a run never got there
  int train_higher = 0, train_lower = 0, validation_higher = 0, validation_lower = 0;
  bool lower_at_2 = false;  // batch norm's validation accuracy, with batches of 2
};
// The rule of TF5. Faster and both accuracies higher in every setting: holds, or, if it is lower at batches of 2, holds
// with nuance. More settings against than for: refuted. For in at least half, or some of both: holds with nuance. Else
// inconclusive.
Verdict judge_twins(const TwinsEvidence& evidence);

// The rule of TF1, over settings: the drift of activations (Ioffe and Szegedy 2015) and the shift of gradients
// (Santurkar et al. 2018), each smaller or larger with batch norm by its interval. Both larger in every setting:
// refuted. One or the other smaller somewhere: holds with nuance; never more, for falling together does not make it the
// reason. Else inconclusive.
struct ShiftEvidence {
  int settings = 0;
  int drift_smaller = 0, drift_larger = 0, gradient_smaller = 0, gradient_larger = 0;
};
Verdict judge_shift(const ShiftEvidence& evidence);

}  // namespace tandem
