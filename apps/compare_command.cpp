// tandem compare: two networks that differ in batch norm alone, seed by seed; a table, JSON and a page.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <exception>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "compare.h"
#include "compare_json.h"
#include "findings.h"
#include "metrics.h"
#include "model_file.h"
#include "options.h"
#include "progress.h"
#include "report.h"
#include "run_dir.h"
#include "signals.h"
#include "table.h"
#include "tandem/core/file.h"
#include "tandem/core/text.h"
#include "tandem/core/threads.h"
#include "terminal.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  CompareSettings compare;
  OutputOptions output;
  std::string out, config;
  bool force = false, dry_run = false;
};

// ---- while it runs -----------------------------------------------------------------------------------------

// A run directory for each run, progress over all of them, signals.
class Watcher : public CompareObserver {
 public:
  Watcher(RunDir& dir, const Splits& data, const Json& machine) : dir_(dir), data_(data), machine_(machine) {}

  void on_start(const Comparison& comparison) override {
    seeds_ = comparison.settings.seeds.size();
    labels_ = {comparison.arms[0].label, comparison.arms[1].label};
    progress_ = std::make_unique<Progress>(comparison.total_steps * 2 * int64_t(seeds_));
  }
  std::unique_ptr<ArmObserver> watch(uint64_t seed, const Arm& arm) override {
    TrainSettings settings = arm.settings;
    settings.seed = seed;
    return std::make_unique<RunLog>(*this, dir_.file(fmt::format("seed{}_{}", seed, arm.id)), settings);
  }
  void on_pair(const SeedPair& pair) override {
    ++finished_;
    auto test = [&](int arm) {
      const auto& accuracy = pair.runs[arm].test_accuracy;
      return labels_[arm] + (accuracy ? fmt::format(" {:.2f} %", 100 * *accuracy) : " diverged");
    };
    notice(fmt::format("seed {}: test accuracy {}, {} ({} of {} done)", pair.seed, test(0), test(1), finished_.load(),
                       seeds_));
  }
  bool should_stop() override { return signals_.stopped(); }

  int signal() const { return signals_.signal(); }
  void end_progress() { progress_.reset(); }

 private:
  class RunLog : public ArmObserver {
   public:
    RunLog(Watcher& all, const std::string& folder, const TrainSettings& settings)
        : all_(all), settings_(settings), dir_(folder, "compare", "", false), log_(folder, settings.log_every) {
      dir_.write_json("config.json", to_json(settings));
      dir_.write_json("env.json", all.machine_);
    }
    void on_step(const StepRecord& record) override {
      dir_.keep();
      all_.dir_.keep();
      log_.step(record);
      const int64_t done = ++all_.steps_;
      all_.progress_->update(done, fmt::format("seeds {}/{}", all_.finished_.load(), all_.seeds_));
    }
    void on_validation(const ValidationRecord& record) override { log_.validation(record); }
    void on_end(Module& model) override {
      log_.flush();
      save_model(model, dir_.file("model.safetensors"), settings_, all_.data_.train);
    }

   private:
    Watcher& all_;
    const TrainSettings settings_;
    RunDir dir_;
    MetricsLog log_;
  };

  RunDir& dir_;
  const Splits& data_;
  const Json& machine_;
  StopOnSignal signals_;
  std::unique_ptr<Progress> progress_;
  size_t seeds_ = 0;
  std::array<std::string, 2> labels_;
  std::atomic<int64_t> steps_{0};
  std::atomic<size_t> finished_{0};
};

// ---- what it says ---------------------------------------------------------------------------------------------

// Names and values for a page, nested ones joined by a dot.
Facts facts(const Json& json, const std::string& prefix = "") {
  Facts all;
  for (const auto& [name, value] : json.items()) {
    if (value.is_object())
      for (auto& fact : facts(value, prefix + name + ".")) all.push_back(std::move(fact));
    else if (!value.is_null())
      all.emplace_back(prefix + name, value.is_string() ? value.get<std::string>() : value.dump());
  }
  return all;
}

// What the comparison was asked to do; `compare --config` does it again.
Json config_json(const Comparison& c) {
  Json config = to_json(c.arms[1].settings);
  config["command"] = "compare";
  for (const char* of_train : {"seed", "bn"}) config.erase(of_train);
  config["preset"] = c.settings.preset;
  config["seeds"] = c.settings.seeds;
  return config;
}

// What both arms share; what is set per run is left out.
Json shared_settings(const Comparison& c) {
  Json settings = to_json(c.arms[1].settings);
  settings["dataset"] = c.dataset;
  for (const char* per_run : {"tool", "command", "seed", "bn", "data", "threads", "layers", "eval_every"})
    settings.erase(per_run);
  for (const Arm& arm : c.arms) settings["layers of " + arm.label] = arm.settings.layers;
  settings["eval_every"] = c.eval_every;
  settings["seeds"] = c.settings.seeds;
  return settings;
}

std::string hash_table(const Comparison& c) {
  Table table{{"seed", "arm", "initial weights", "batches"}, {}};
  for (const SeedPair& pair : c.pairs)
    for (int i = 0; i < 2; ++i)
      table.rows.push_back({fmt::format("{}", pair.seed), c.arms[i].label, pair.runs[i].weights_hash.substr(0, 20),
                            pair.runs[i].order_hash.substr(0, 20)});
  return table.to_string();
}

std::string headline(const Comparison& c, size_t seeds) {
  return wrap(fmt::format("{} and {}: {} on {}, {} seed{}, {} steps each, parameters {} and {}", c.arms[0].label,
                          c.arms[1].label, c.arms[1].settings.model, c.dataset, seeds, seeds == 1 ? "" : "s",
                          group_digits(c.total_steps), group_digits(c.arms[0].parameters),
                          group_digits(c.arms[1].parameters))) +
         "\n";
}

std::string to_text(const Comparison& c) {
  std::string out = headline(c, c.pairs.size());
  if (c.interrupted)
    out += fmt::format("Interrupted: {} of {} seeds finished.\n\n", c.pairs.size(), c.settings.seeds.size());
  if (c.pairs.empty()) return out + findings(c).front() + "\n";
  out += "SHA-256 of shared initial weights and of the order of batches (first 20 digits;\nequal within a seed):\n\n" +
         hash_table(c) + "\n";
  Table table{{"", c.arms[0].label, c.arms[1].label, "difference"}, {}};
  for (const Quantity& q : quantities(c))
    table.rows.push_back({q.label, arm_cell(q, 0), arm_cell(q, 1), difference_cell(q)});
  out += table.to_string() + "\n";
  out +=
      wrap(fmt::format("mean +- sd over {} seed{}; difference: {} minus {}, paired by seed, with the 95 % interval of "
                       "its mean. Steps are known to within {}; (+-) stands for an interval where the "
                       "seeds differ by less. Seconds are of training alone{}. A/A difference: "
                       "{:g} after {} steps.",
                       c.pairs.size(), c.pairs.size() == 1 ? "" : "s", c.arms[1].label, c.arms[0].label, c.eval_every,
                       c.parallel_arms ? ", both arms running at once" : "", *c.aa_difference, c.aa_steps));
  out += "\n";
  for (const std::string& sentence : findings(c)) out += wrap(sentence);
  return out;
}

bool all_diverged(const Comparison& c) {
  return std::all_of(c.pairs.begin(), c.pairs.end(),
                     [](const SeedPair& pair) { return pair.runs[0].diverged && pair.runs[1].diverged; });
}

// ---- the command -----------------------------------------------------------------------------------------------

const std::vector<Preset> kPresets = {
    {"quick", "with and without batch norm", {{"--seeds", "1..5"}, {"--epochs", "3"}}},
    {"null", "the plain network against itself", {{"--seeds", "1..3"}, {"--epochs", "1"}}},
};

int run(Options options) {
  CompareSettings& settings = options.compare;
  use_device(settings.training);
  const Splits host = load_data(settings.training), data = to_device(host, settings.training);
  if (!data.notice.empty()) notice(data.notice);
  Comparison comparison = plan_comparison(settings, data);
  if (options.dry_run) {
    const Json config = config_json(comparison);
    options.output.json ? print_json(config)
                        : print(headline(comparison, settings.seeds.size()) + "settings    " + indented(config));
    return kOk;
  }
  RunDir dir(options.out, "compare", fmt::format("compare-{}-{}", settings.preset, data.train.name), options.force);
  dir.write_json("config.json", config_json(comparison));
  const Json machine = environment(host);
  Watcher watcher(dir, data, machine);
  std::exception_ptr failure;
  try {
    compare(comparison, data, watcher);
  } catch (...) {
    failure = std::current_exception();
  }
  watcher.end_progress();
  if (failure && comparison.pairs.empty()) std::rethrow_exception(failure);
  dir.keep();

  Json json = to_json(comparison);
  json["settings"] = shared_settings(comparison);
  json["environment"] = machine;
  std::string report = dir.file("report.html");
  try {
    dir.write_json("RESULT.json", json);
    write_file(report, report_html(comparison, facts(json["settings"]), facts(machine)));
  } catch (const IoError&) {  // what was learned is still printed
    report = "not written";
    if (!failure) failure = std::current_exception();
  }
  json["out"] = dir.path();
  if (options.output.json) {
    print_json(json);
  } else {
    print(to_text(comparison) + fmt::format("\nreport: {}\n", report));
  }
  if (failure) std::rethrow_exception(failure);
  if (comparison.interrupted) return 128 + watcher.signal();
  if (all_diverged(comparison)) throw DivergedError("every run diverged; try a smaller --lr, --warmup or --clip");
  return *comparison.aa_difference == 0 ? kOk : kFailure;
}

}  // namespace

void add_compare(CLI::App& program, Action& action) {
  auto o = std::make_shared<Options>();
  o->compare.training.eval_every = 100;
  CLI::App* command =
      program.add_subcommand("compare", "Train with and without batch norm, seed by seed, and compare.");
  command->footer(
      "  tandem compare --preset quick                 w2, 5 seeds, 3 epochs, both arms at once\n"
      "  tandem compare --model w3 --seeds 1..10       another network, more seeds\n"
      "  tandem compare --preset null                  A/A: the plain network twice, must differ by 0\n"
      "  tandem compare --layers \"dense:100,bn,relu,dense:10\" --lr 0.3 --out runs/mine\n");
  add_preset(*command, o->compare.preset, kPresets);
  add_seeds(*command, "--seeds", o->compare.seeds, "1..5, 7 or 1,2,9")->default_str("the preset's");
  add_model_options(*command, o->compare.training);
  add_data_options(*command, o->compare.training);
  add_training_options(*command, o->compare.training);
  add_device_options(*command, o->compare.training);
  add_dtype(*command, o->compare.training);
  add_step_options(*command, o->compare.training);
  add_text(*command, "-o,--out", o->out, "DIR", "the folder for RESULT.json, report.html and the runs' logs")
      ->default_str("runs/TIME_compare-PRESET-DATA_s1");
  command->add_flag("--force", o->force, "replace an earlier comparison in --out");
  command->add_flag("--dry-run", o->dry_run, "check and describe the comparison, do nothing");
  add_output_options(*command, o->output);
  add_config(*command, o->config);
  command->callback([=, &action] {
    take_defaults(*command, o->config);
    take_preset(*command, o->compare.preset, kPresets);
    action = [o] { return run(*o); };
  });
}

}  // namespace tandem
