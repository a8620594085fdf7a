#include "compare_json.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "findings.h"
#include "tandem/core/version.h"

namespace tandem {

using Json = nlohmann::ordered_json;

namespace {

template <class T>
Json or_null(const std::optional<T>& value) {
  return value ? Json(*value) : Json();
}

Json to_json(const ArmRun& run) {
  Json steps_to, seconds_to, curve;
  for (double target : compare_targets) {
    const CurvePoint* point = first_reaching(run, target);
    const std::string key = fmt::format("{:.0f}", 100 * target);
    steps_to[key] = point ? Json(point->step) : Json();
    seconds_to[key] = point ? Json(point->seconds) : Json();
  }
  for (const char* column : {"step", "seconds", "train_loss", "validation_loss", "validation_accuracy"})
    curve[column] = Json::array();
  for (const CurvePoint& point : run.curve) {
    curve["step"].push_back(point.step);
    curve["seconds"].push_back(point.seconds);
    curve["train_loss"].push_back(point.train_loss);
    curve["validation_loss"].push_back(point.validation_loss);
    curve["validation_accuracy"].push_back(point.validation_accuracy);
  }
  return {{"weights_sha256", run.weights_hash},
          {"batches_sha256", run.order_hash},
          {"diverged", run.diverged},
          {"steps", run.steps},
          {"seconds", run.seconds},
          {"train_accuracy", or_null(run.train_accuracy)},
          {"validation_accuracy", or_null(run.validation_accuracy)},
          {"test_accuracy", or_null(run.test_accuracy)},
          {"steps_to", steps_to},
          {"seconds_to", seconds_to},
          {"curve", curve}};
}

Json to_json(const Summary& s) {
  return {{"runs", s.runs},
          {"present", s.present},
          {"mean", or_null(s.mean)},
          {"sd", or_null(s.sd)},
          {"median", or_null(s.median)}};
}

Json to_json(const Paired& p) {
  Json per_seed = Json::array();
  for (const auto& difference : p.differences) per_seed.push_back(or_null(difference));
  return {{"per_seed", per_seed}, {"mean", or_null(p.mean)},
          {"sd", or_null(p.sd)},  {"interval95", p.low ? Json({*p.low, *p.high}) : Json()},
          {"better", p.better},   {"tied", p.tied},
          {"worse", p.worse},     {"neither", p.neither}};
}

}  // namespace

Json to_json(const Comparison& c) {
  Json arms, seeds = Json::array(), summary;
  for (const Arm& arm : c.arms)
    arms[arm.id] = {{"label", arm.label}, {"parameters", arm.parameters}, {"layers", arm.settings.layers}};
  for (const SeedPair& pair : c.pairs)
    seeds.push_back(
        {{"seed", pair.seed}, {c.arms[0].id, to_json(pair.runs[0])}, {c.arms[1].id, to_json(pair.runs[1])}});
  for (const Quantity& q : quantities(c))
    summary[q.key] = {{c.arms[0].id, to_json(q.first_summary)},
                      {c.arms[1].id, to_json(q.second_summary)},
                      {"difference", to_json(q.paired)}};
  return {{"tool", "tandem"},
          {"command", "compare"},
          {"version", version()},
          {"preset", c.settings.preset},
          {"dataset", c.dataset},
          {"status", c.interrupted ? "interrupted" : "finished"},
          {"aa_difference", or_null(c.aa_difference)},
          {"aa_steps", c.aa_steps},
          {"seeds_asked", c.settings.seeds},
          {"steps", c.total_steps},
          {"eval_every", c.eval_every},
          {"arms_in_parallel", c.parallel_arms},
          {"pairs_in_parallel", c.parallel_pairs},
          {"seconds", c.seconds},
          {"arms", arms},
          {"seeds", seeds},
          {"summary", summary},
          {"findings", findings(c)}};
}

}  // namespace tandem
