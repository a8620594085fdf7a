#include "options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "tandem/core/file.h"
#include "tandem/core/text.h"
#include "tandem/core/threads.h"
#include "tandem/optim/schedule.h"
#include "terminal.h"

namespace tandem {
namespace {

// A check that returns the sentence CLI11 puts after the flag's name, or nothing.
std::function<std::string(const std::string&)> integer_check(int64_t low, int64_t high) {
  return [=](const std::string& text) -> std::string {
    const auto value = parse_int(text);
    if (value && *value >= low && *value <= high) return "";
    const bool bounded = high < std::numeric_limits<int64_t>::max();
    return fmt::format("expected an integer {}, got '{}'",
                       bounded ? fmt::format("from {} to {}", low, high) : fmt::format("of at least {}", low), text);
  };
}

std::function<std::string(const std::string&)> number_check(Range range) {
  return [=](const std::string& text) -> std::string {
    const auto value = parse_double(text);
    const bool ok = value && std::isfinite(*value) && *value <= range.high &&
                    (range.above ? *value > range.low : *value >= range.low);
    if (ok) return "";
    const std::string low = fmt::format("{} {}", range.above ? "above" : "of at least", range.low);
    return fmt::format("expected a number {}{}, got '{}'", low,
                       std::isfinite(range.high) ? fmt::format(" and at most {}", range.high) : "", text);
  };
}

std::function<std::string(const std::string&)> choice_check(const std::vector<std::string>& choices) {
  return [=](const std::string& text) -> std::string {
    if (std::find(choices.begin(), choices.end(), text) != choices.end()) return "";
    return fmt::format("expected {}, got '{}'{}", fmt::join(choices, ", "), text, did_you_mean(text, choices));
  };
}

// "1..5", "7" or "1,2,9" as distinct seeds; throws CLI::ValidationError.
std::vector<uint64_t> parse_seeds(const std::string& name, const std::string& text) {
  constexpr int64_t most = 10'000;
  const CLI::ValidationError wrong(
      name, fmt::format("expected distinct seeds as 1..5, 7 or 1,2,9 (at most {}), got '{}'", most, text));
  std::vector<uint64_t> seeds;
  if (const size_t dots = text.find(".."); dots != std::string::npos) {
    const auto first = parse_int(text.substr(0, dots)), last = parse_int(text.substr(dots + 2));
    if (!first || !last || *first < 0 || *first > *last || *last - *first >= most) throw wrong;
    for (int64_t seed = *first; seed <= *last; ++seed) seeds.push_back(seed);
    return seeds;
  }
  for (const std::string& piece : split(text, ',')) {
    const auto seed = parse_int(piece);
    if (!seed || *seed < 0) throw wrong;
    seeds.push_back(*seed);
  }
  if (seeds.empty() || std::set(seeds.begin(), seeds.end()).size() != seeds.size()) throw wrong;
  return seeds;
}

}  // namespace

CLI::Option* add_integer(CLI::App& app, const std::string& names, int64_t& value, int64_t low, const std::string& help,
                         int64_t high) {
  return app.add_option(names, value, help)->check(integer_check(low, high))->type_name("N")->capture_default_str();
}

CLI::Option* add_number(CLI::App& app, const std::string& names, double& value, Range range, const std::string& help) {
  return app.add_option(names, value, help)
      ->check(number_check(range))
      ->type_name("X")
      ->default_str(fmt::format("{}", value));
}

CLI::Option* add_integer(CLI::App& app, const std::string& names, std::optional<int64_t>& value, int64_t low,
                         int64_t high, const std::string& help, const std::string& shown) {
  return app
      .add_option_function<int64_t>(
          names, [&value](int64_t v) { value = v; }, help)
      ->check(integer_check(low, high))
      ->type_name("N")
      ->default_str(shown);
}

CLI::Option* add_number(CLI::App& app, const std::string& names, std::optional<double>& value, Range range,
                        const std::string& help, const std::string& shown) {
  return app
      .add_option_function<double>(
          names, [&value](double v) { value = v; }, help)
      ->check(number_check(range))
      ->type_name("X")
      ->default_str(shown);
}

CLI::Option* add_choice(CLI::App& app, const std::string& names, std::string& value,
                        const std::vector<std::string>& choices, const std::string& help) {
  return app.add_option(names, value, help)->check(choice_check(choices))->type_name("NAME")->capture_default_str();
}

CLI::Option* add_on_off(CLI::App& app, const std::string& names, bool& value, const std::string& help) {
  return app
      .add_option_function<std::string>(
          names, [&value](const std::string& v) { value = v == "on"; }, help)
      ->check(choice_check({"on", "off"}))
      ->type_name("on|off")
      ->default_str(value ? "on" : "off");
}

CLI::Option* add_text(CLI::App& app, const std::string& names, std::string& value, const std::string& type,
                      const std::string& help) {
  return app.add_option(names, value, help)->type_name(type)->capture_default_str();
}

CLI::Option* add_seeds(CLI::App& app, const std::string& names, std::vector<uint64_t>& value, const std::string& help) {
  const std::string name = names.substr(0, names.find(','));
  return app
      .add_option_function<std::string>(
          names, [&value, name](const std::string& text) { value = parse_seeds(name, text); }, help)
      ->type_name("SEEDS");
}

void add_output_options(CLI::App& app, OutputOptions& options) {
  app.add_flag("--json", options.json, "one JSON object on stdout instead of text");
  app.add_flag_callback(
      "-q,--quiet", [&options] { set_quiet(options.quiet = true); }, "no progress, no notices");
  app.add_option_function<std::string>(
         "--color",
         [](const std::string& when) {
           set_color(when == "always" ? Color::always : when == "never" ? Color::never : Color::automatic);
         },
         "colours; auto: on a terminal unless NO_COLOR is set")
      ->check(choice_check({"auto", "always", "never"}))
      ->type_name("WHEN")
      ->default_str("auto");
}

void add_model_options(CLI::App& app, TrainSettings& s) {
  const std::string group = "Network";
  auto* model = add_choice(app, "--model", s.model, {"mlp", "w1", "w2", "w3", "lenet"},
                           "a named network: mlp, w1, w2, w3 or lenet")
                    ->group(group);
  const auto take_layers = [&s](const std::string& text) {
    s.layers = text;
    s.model = "custom";
  };
  app.add_option_function<std::string>(
         "--layers", take_layers,
         "your own: dense:512[:bias=on|off] conv:32[:k=3:s=1:p=0] bn ln gn:8 relu sigmoid tanh dropout:0.5 "
         "flatten maxpool:2 avgpool:2 gap, joined by commas")
      ->check([](const std::string& text) { return text.empty() ? "expected layers such as dense:10, got none" : ""; })
      ->type_name("TEXT")
      ->excludes(model)
      ->group(group);
}

void add_data_dir(CLI::App& app, TrainSettings& s) {
  add_text(app, "--data,--data_path", s.data_dir, "DIR",
           "the folder with the four files, or with one folder per data set; else $TANDEM_DATA, else the cache")
      ->group("Data");
}

void add_data_options(CLI::App& app, TrainSettings& s) {
  const std::string group = "Data";
  add_choice(app, "--dataset", s.dataset, {"auto", "mnist", "fashion-mnist", "digits"},
             "mnist, fashion-mnist, digits (built in) or auto: MNIST if it is found, else digits")
      ->group(group);
  add_data_dir(app, s);
  add_integer(app, "--shift", s.shift, 0, "move training images randomly by up to N pixels", 27)->group(group);
}

void add_training_options(CLI::App& app, TrainSettings& s) {
  const std::string group = "Training";
  std::vector<CLI::Option*> options = {
      add_integer(app, "--epochs", s.epochs, 1, 1'000'000, "passes over the training data", "3, unless --max-steps"),
      add_integer(app, "--max-steps", s.max_steps, 0, "stop after N steps; 0: no limit"),
      add_integer(app, "-b,--batch-size,--batch_size,--minibatch_size", s.batch_size, 1, 1'000'000, "images a step",
                  "128; w1 60"),
      add_choice(app, "--last-batch", s.last_batch, {"auto", "drop", "keep", "merge"},
                 "images that fill no batch: leave out, a smaller batch, or into the one before; auto: drop, but merge "
                 "a single image"),
      add_choice(app, "--optimizer", s.optimizer, {"sgd", "adam", "adamw"}, "sgd, adam or adamw"),
      add_number(app, "--lr,--learning-rate,--learning_rate", s.lr, {0}, "learning rate",
                 "0.1; w3, lenet 0.05; adam 0.001"),
      add_number(app, "--momentum", s.momentum, {0, 1}, "of SGD"),
      app.add_flag("--nesterov", s.nesterov, "Nesterov's momentum"),
      add_number(app, "--weight-decay,--wd", s.weight_decay, {0}, "L2 decay; adamw: decoupled", "0; adamw 0.01"),
      add_choice(app, "--decay", s.decay, {"weights", "all"}, "decay weights only, or biases and batch norm too"),
      add_number(app, "--clip", s.clip, {0}, "largest norm of all gradients together; 0: no limit"),
      add_number(app, "--label-smoothing", s.label_smoothing, {0, 1}, "share of each label spread over all classes"),
      add_choice(app, "--schedule", s.schedule, {"constant", "step", "cosine", "one-cycle"},
                 "how the learning rate changes: constant, step, cosine or one-cycle"),
      add_integer(app, "--warmup", s.warmup, 0, "steps of linear warm-up"),
      add_integer(app, "--step-size", s.step_size, 0, "step schedule: steps between drops; 0: a third of all"),
      add_number(app, "--gamma", s.gamma, {0, 1, true}, "step schedule: factor of a drop"),
      add_integer(app, "--eval-every", s.eval_every, 0, "steps between validations; 0: once an epoch"),
      add_integer(app, "--log-every,--log-interval,--print-freq", s.log_every, 1,
                  "steps between records of the training loss"),
  };
  for (CLI::Option* option : options) option->group(group);
}

void add_seed(CLI::App& app, TrainSettings& s) {
  app.add_option("--seed", s.seed, "of initial weights, order of images, dropout and shifts")
      ->check(integer_check(0, std::numeric_limits<int64_t>::max()))
      ->type_name("N")
      ->capture_default_str()
      ->group("Training");
}

void add_device_options(CLI::App& app, TrainSettings& s) {
  const std::string group = "Machine";
  app.add_option("--device", s.device, "cpu, cuda or cuda:1")
      ->type_name("NAME")
      ->capture_default_str()
      ->check([](const std::string& text) -> std::string {
        try {
          Device::parse(text);
          return "";
        } catch (const ValueError&) {
          return fmt::format("expected cpu, cuda or cuda:I, got '{}'", text);
        }
      })
      ->group(group);
  add_integer(app, "-j,--threads,--workers", s.threads, 0, "0: the cores this process may use", 1024)->group(group);
}

void add_dtype(CLI::App& app, TrainSettings& s) {
  add_choice(app, "--dtype", s.dtype, {"float32", "float64"}, "of parameters: float32 or float64")->group("Machine");
  add_choice(app, "--precision", s.precision, {"fp32", "tf32", "bf16"},
             "of a GPU's float32 products: fp32, or factors rounded to tf32 or bf16")
      ->group("Machine");
}

void add_step_options(CLI::App& app, TrainSettings& s) {
  app.add_flag("--eager", s.eager, "run steps op by op instead of replaying their plan")->group("Machine");
  add_integer(app, "--check-plan", s.check_plan, 0, "every N steps compare the plan with the eager step; 0: never")
      ->group("Machine");
}

// ---- defaults from elsewhere ---------------------------------------------------------------------------------

namespace {

// Gives `option` the value `text` that stands in `source`, unless it or one that excludes it has one already.
void set_default(CLI::Option& option, const std::string& text, const std::string& source) {
  const auto excluded = option.get_excludes();
  const bool taken = std::any_of(excluded.begin(), excluded.end(), [](const auto* o) { return o->count() > 0; });
  if (taken || option.count() > 0) return;
  try {
    option.add_result(text);
    option.run_callback();
  } catch (const CLI::ParseError& e) {
    throw UsageError(fmt::format("{}: {}", source, e.what()));
  }
}

// A value of config.json as it would be typed.
std::string flag_text(const nlohmann::json& value, bool switched) {
  if (value.is_string()) return value;
  if (value.is_boolean() && switched) return value ? "on" : "off";
  if (!value.is_array()) return value.dump();
  std::vector<std::string> pieces;
  for (const auto& piece : value) pieces.push_back(piece.dump());
  return fmt::format("{}", fmt::join(pieces, ","));
}

void take_file(CLI::App& app, const std::string& path) {
  const std::vector<uint8_t> bytes = read_file(path);
  const auto json = nlohmann::ordered_json::parse(bytes, nullptr, false);
  if (!json.is_object()) throw UsageError(fmt::format("--config {}: expected a JSON object such as a run's", path));
  for (const auto& [key, value] : json.items()) {
    // Not flags: who wrote it, and what was hashed. A custom network is said by its layers, any other by its name.
    if (key == "tool" || key == "command" || key == "from_sha256" || value.is_null() || value == "") continue;
    if (key == "model" && value == "custom") continue;
    std::string flag = "--" + key;
    std::replace(flag.begin(), flag.end(), '_', '-');
    CLI::Option* option = app.get_option_no_throw(flag);
    if (!option) throw UsageError(fmt::format("--config {}: {} has no {}", path, app.get_name(), flag));
    set_default(*option, flag_text(value, option->get_type_name() == "on|off"), "--config " + path);
  }
}

}  // namespace

void add_config(CLI::App& app, std::string& path) {
  add_text(app, "--config", path, "FILE",
           "JSON with values for flags that are not given, such as a run's config.json; before it, TANDEM_LR in the "
           "environment stands for --lr, and so on");
}

void take_defaults(CLI::App& app, const std::string& config) {
  const CLI::Option* preset = app.get_option_no_throw("--preset");
  if (preset && preset->count() > 0 && !config.empty())
    throw UsageError("--preset excludes --config: a run's config.json names all flags and leaves nothing to a preset");
  for (CLI::Option* option : app.get_options()) {
    if (option->get_group() == "Options" || option->get_lnames().empty()) continue;
    std::string name = "TANDEM_" + option->get_lnames()[0];
    for (char& c : name) c = c == '-' ? '_' : char(std::toupper(static_cast<unsigned char>(c)));
    const char* value = name == "TANDEM_DATA" ? nullptr : std::getenv(name.c_str());  // find_mnist reads that one
    if (value && *value) set_default(*option, value, name);
  }
  if (!config.empty()) take_file(app, config);
}

CLI::Option* add_preset(CLI::App& app, std::string& name, const std::vector<Preset>& presets) {
  std::vector<std::string> names, texts;
  for (const Preset& preset : presets) {
    std::string values;
    for (const auto& [flag, value] : preset.values) {
      values += (values.empty() ? "" : "; ") + flag + " ";
      for (const char c : value) values += c == ',' ? ", " : std::string(1, c);  // so that a line can break
    }
    names.push_back(preset.name);
    texts.push_back(fmt::format("{}: {} ({})", preset.name, preset.purpose, values));
  }
  return add_choice(app, "--preset", name, names,
                    fmt::format("values for flags that are not given. {}", fmt::join(texts, ". ")));
}

void take_preset(CLI::App& app, const std::string& name, const std::vector<Preset>& presets) {
  const auto preset = std::find_if(presets.begin(), presets.end(), [&](const Preset& p) { return p.name == name; });
  if (preset == presets.end()) return;
  const bool length_given = app.count("--epochs") + app.count("--max-steps") > 0;
  for (const auto& [flag, value] : preset->values) {
    if (length_given && (flag == "--epochs" || flag == "--max-steps" || flag == "--eval-from")) continue;
    set_default(*app.get_option(flag), value, "--preset " + name);
  }
}

std::string cuda_fault() {
  try {
    require_device(Device::cuda());
    return "";
  } catch (const DeviceError& e) {
    const std::string sentence = e.what(), prefix = "cuda: ";
    return sentence.starts_with(prefix) ? sentence.substr(prefix.size()) : sentence;
  }
}

void use_device(const TrainSettings& settings) {
  if (settings.precision != "fp32" && settings.device == "cpu") {
    throw DeviceError(fmt::format("--precision {}: expected a CUDA device, got cpu; name one with --device cuda",
                                  settings.precision));
  }
  if (settings.precision != "fp32" && settings.dtype != "float32") {
    throw UsageError(
        fmt::format("--precision {}: expected --dtype float32, got {}", settings.precision, settings.dtype));
  }
  require_device(Device::parse(settings.device));
  if (const char* value = std::getenv("NVIDIA_TF32_OVERRIDE"); value && settings.device != "cpu")
    warning(fmt::format("NVIDIA_TF32_OVERRIDE={} is set: cuBLAS does not heed --precision; unset it", value));
  set_threads(settings.threads > 0 ? static_cast<int>(settings.threads) : available_cores());
}

}  // namespace tandem
