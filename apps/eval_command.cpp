// tandem eval: how a trained model does on a data set.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "model_file.h"
#include "options.h"
#include "run_dir.h"
#include "terminal.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  TrainSettings settings;
  OutputOptions output;
  std::string model, split = "test";
};

// Rows are true labels, columns are answers; within 80 columns for ten classes.
std::string confusion_table(const Evaluation& e) {
  std::string out = "true \\ answer", rows;
  for (int64_t c = 0; c < e.classes; ++c) out += fmt::format("{:>6}", c);
  out += "  right\n";
  for (int64_t t = 0; t < e.classes; ++t) {
    int64_t total = 0;
    rows += fmt::format("{:>13}", t);
    for (int64_t a = 0; a < e.classes; ++a) {
      const int64_t n = e.confusion[t * e.classes + a];
      total += n;
      const std::string cell = fmt::format("{:>6}", n == 0 ? "." : fmt::format("{}", n));
      rows += t == a ? styled(stdout, Style::bold, cell) : cell;
    }
    const double share =
        100.0 * static_cast<double>(e.confusion[t * e.classes + t]) / static_cast<double>(std::max<int64_t>(total, 1));
    rows += total == 0 ? "      -\n" : fmt::format("{:>6.1f}%\n", share);
  }
  return out + rows;
}

Json confusion_json(const Evaluation& e) {
  Json rows = Json::array();
  for (int64_t t = 0; t < e.classes; ++t) {
    const auto row = e.confusion.begin() + t * e.classes;
    rows.push_back(std::vector<int64_t>(row, row + e.classes));
  }
  return rows;
}

int run(Options& o) {
  use_device(o.settings);
  const ModelFile file = open_model(o.model);
  TrainSettings& s = o.settings;
  s.dtype = file.dtype;
  // Without --dataset: the one the model was trained on, and no other in its place.
  if (s.dataset == "auto" && !file.dataset.empty()) {
    s.dataset = file.dataset;
    if (s.dataset != "mnist" && s.dataset != "fashion-mnist" && s.dataset != "digits") {
      throw UsageError(
          fmt::format("--dataset: expected mnist, fashion-mnist or digits, as {} was trained on '{}', which "
                      "is none of them",
                      file.path, file.dataset));
    }
  }
  const Splits data = to_device(load_data(s), s);
  require_fit(file, data.test);
  if (!data.notice.empty()) notice(data.notice);
  const Dataset& part = o.split == "train" ? data.train : o.split == "validation" ? data.validation : data.test;
  file.model->to(Device::parse(s.device));
  const Evaluation e = evaluate(*file.model, part, s);
  if (o.output.json) {
    Json json = {{"model", file.path}, {"dataset", part.name}, {"split", o.split}};
    json.update(to_json(e));
    json["confusion"] = confusion_json(e);
    print_json(json);
  } else {
    print(fmt::format("{} on {} ({})\naccuracy {} ({} of {}), loss {:.4f}\n\n{}", file.path, part.name, o.split,
                      styled(stdout, Style::bold, fmt::format("{:.2f} %", 100 * e.accuracy)), e.correct, e.count,
                      e.loss, confusion_table(e)));
  }
  return kOk;
}

}  // namespace

void add_eval(CLI::App& program, Action& action) {
  auto o = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("eval", "Test a trained model and print its confusion matrix.");
  command->footer(
      "  tandem eval runs/mine                        on the data set it was trained on\n"
      "  tandem eval model.safetensors --dataset fashion-mnist --split validation\n");
  command->add_option("MODEL", o->model, "a run directory or a model file")->required();
  add_choice(*command, "--dataset", o->settings.dataset, {"auto", "mnist", "fashion-mnist", "digits"},
             "mnist, fashion-mnist, digits or auto: the one the model was trained on")
      ->group("Data");
  add_data_dir(*command, o->settings);
  add_choice(*command, "--split", o->split, {"test", "validation", "train"}, "test, validation or train")
      ->group("Data");
  add_device_options(*command, o->settings);
  add_output_options(*command, o->output);
  command->callback([=, &action] { action = [o] { return run(*o); }; });
}

}  // namespace tandem
