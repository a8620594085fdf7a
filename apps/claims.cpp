#include "claims.h"

#include <fmt/format.h>

#include <algorithm>

#include "tandem/core/error.h"
#include "tandem/core/text.h"

namespace tandem {

const char* name_of(Verdict verdict) {
  switch (verdict) {
    case Verdict::holds:
      return "holds";
    case Verdict::holds_with_nuance:
      return "holds with nuance";
    case Verdict::refuted:
      return "refuted";
    case Verdict::inconclusive:
      return "inconclusive";
  }
  return "";
}

const std::vector<std::string>& claim_ids() {
  static const std::vector<std::string> ids = {"TF1", "TF2", "TF3", "TF4", "TF5", "PT1", "PT2", "PT3", "PT4", "PT5"};
  return ids;
}

bool needs_training(const std::vector<std::string>& ids) {
  return ids.empty() ||
         std::any_of(ids.begin(), ids.end(), [](const std::string& id) { return id == "TF1" || id == "TF5"; });
}

std::vector<Claim> examine_claims(const ClaimsSettings& settings, const Splits* data, ClaimsObserver& observer) {
  using OfLayer = Claim (*)(const NormMaker&);
  using OfTraining = std::optional<Claim> (*)(const ClaimsSettings&, const Splits&, ClaimsObserver&);
  const std::vector<std::pair<std::string, OfLayer>> of_layer = {
      {"TF2", claim_tf2_shape},          {"TF3", claim_tf3_keras_momentum},     {"TF4", claim_tf4_batch_of_one},
      {"PT1", claim_pt1_worked_example}, {"PT2", claim_pt2_running_statistics}, {"PT3", claim_pt3_pytorch_momentum},
      {"PT4", claim_pt4_wrong_channels}, {"PT5", claim_pt5_sequences}};
  const std::vector<std::pair<std::string, OfTraining>> of_training = {{"TF1", claim_tf1_covariate_shift},
                                                                       {"TF5", claim_tf5_faster_and_better}};
  const std::vector<std::string>& ids = settings.ids.empty() ? claim_ids() : settings.ids;
  for (const std::string& id : ids)
    if (std::find(claim_ids().begin(), claim_ids().end(), id) == claim_ids().end())
      throw ValueError(fmt::format("claims: expected one of TF1 to TF5 and PT1 to PT5, got \"{}\"", id));
  std::vector<Claim> claims;
  auto add = [&](Claim claim) {
    claims.push_back(std::move(claim));
    observer.on_claim(claims.back());
  };
  for (const std::string& id : ids) {
    for (const auto& [own, examine] : of_layer)
      if (own == id) add(examine(settings.norm));
    for (const auto& [own, examine] : of_training)
      if (own == id) {
        std::optional<Claim> claim = examine(settings, *data, observer);
        if (!claim) return claims;
        add(std::move(*claim));
      }
  }
  return claims;
}

}  // namespace tandem
