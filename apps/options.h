// Flags that several subcommands share, and the kinds of value they take. A bad value is answered with one
// sentence, `--lr: expected a number above 0, got 'fast'`, and exit code 2.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "trainer.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace tandem {

// ---- kinds of value. `names` as CLI11 takes them, "-b,--batch-size"; of several long names, the first is
// shown in the help and the others are aliases. Defaults are shown by the help.

CLI::Option* add_integer(CLI::App& app, const std::string& names, int64_t& value, int64_t low, const std::string& help,
                         int64_t high = std::numeric_limits<int64_t>::max());
// low <= value <= high, or low < value with `above`.
struct Range {
  double low, high = std::numeric_limits<double>::infinity();
  bool above = false;
};
CLI::Option* add_number(CLI::App& app, const std::string& names, double& value, Range range, const std::string& help);
// The same for values whose default depends on others; `shown` describes it in the help.
CLI::Option* add_integer(CLI::App& app, const std::string& names, std::optional<int64_t>& value, int64_t low,
                         int64_t high, const std::string& help, const std::string& shown);
CLI::Option* add_number(CLI::App& app, const std::string& names, std::optional<double>& value, Range range,
                        const std::string& help, const std::string& shown);
// One of a few words; a wrong one is answered with the nearest.
CLI::Option* add_choice(CLI::App& app, const std::string& names, std::string& value,
                        const std::vector<std::string>& choices, const std::string& help);
CLI::Option* add_on_off(CLI::App& app, const std::string& names, bool& value, const std::string& help);
// `type` is what the help calls the value: DIR, FILE, TEXT.
CLI::Option* add_text(CLI::App& app, const std::string& names, std::string& value, const std::string& type,
                      const std::string& help);
// "1..5", "7" or "1,2,9": distinct seeds.
CLI::Option* add_seeds(CLI::App& app, const std::string& names, std::vector<uint64_t>& value, const std::string& help);

// ---- groups of flags -------------------------------------------------------------------------------------

struct OutputOptions {
  bool json = false;   // one JSON object on stdout instead of text
  bool quiet = false;  // no progress, no notices; errors and results stay
};
void add_output_options(CLI::App& app, OutputOptions& options);  // --json, -q, --color

void add_model_options(CLI::App& app, TrainSettings& settings);     // --model, --layers (not --bn)
void add_data_options(CLI::App& app, TrainSettings& settings);      // --dataset, --data, --shift
void add_data_dir(CLI::App& app, TrainSettings& settings);          // --data alone
void add_training_options(CLI::App& app, TrainSettings& settings);  // --epochs to --eval-every (not --seed)
void add_seed(CLI::App& app, TrainSettings& settings);              // --seed
void add_device_options(CLI::App& app, TrainSettings& settings);    // --device, --threads
void add_dtype(CLI::App& app, TrainSettings& settings);             // --dtype, --precision
void add_step_options(CLI::App& app, TrainSettings& settings);      // --eager, --check-plan

// --config, and what take_defaults(), called once all flags were read, does: a flag that was not given gets its value
// from the environment (TANDEM_LR for --lr; of the network, data, training and machine) or else from the file. Throws
// UsageError for a wrong value or a key that is no flag.
void add_config(CLI::App& app, std::string& path);
void take_defaults(CLI::App& app, const std::string& config);

// Values for flags under a name, each as it would be typed; a switch as "true".
struct Preset {
  std::string name, purpose;
  std::vector<std::pair<std::string, std::string>> values;  // {"--lr", "0.1"}
};
// --preset, one of `presets`, and what take_preset(), called after take_defaults(), does: flags that have no value yet
// get the preset's, its length (--epochs, --max-steps, --eval-from) only if
// neither of the first two is given. An empty name is no preset.
CLI::Option* add_preset(CLI::App& app, std::string& name, const std::vector<Preset>& presets);
void take_preset(CLI::App& app, const std::string& name, const std::vector<Preset>& presets);

std::string cuda_fault();  // why CUDA cannot be used here; empty if it can

// Applies --threads and checks --device: call once, before any kernel runs. Throws DeviceError.
void use_device(const TrainSettings& settings);

}  // namespace tandem
