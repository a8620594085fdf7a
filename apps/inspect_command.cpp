// tandem inspect: what a model file holds.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "model_file.h"
#include "options.h"
#include "stepper.h"
#include "tandem/core/compile.h"
#include "tandem/core/safetensors.h"
#include "tandem/core/text.h"
#include "tandem/layers/build.h"
#include "terminal.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  OutputOptions output;
  std::string model;
  bool plan = false;
  TrainSettings training;  // of the step whose plan is shown
};

Json to_json(const SafeTensors& content, const std::string& path) {
  Json tensors = Json::array();
  int64_t values = 0;
  for (const auto& [name, tensor] : content.tensors) {
    const Shape shape = tensor.shape();
    tensors.push_back({{"name", name},
                       {"dtype", name_of(tensor.dtype())},
                       {"shape", std::vector<int64_t>(shape.begin(), shape.end())}});
    values += tensor.numel();
  }
  return {{"file", path}, {"metadata", content.metadata}, {"values", values}, {"tensors", tensors}};
}

std::string to_text(const SafeTensors& content, const std::string& path) {
  std::string out = path + "\n\n";
  for (const auto& [key, value] : content.metadata) out += fmt::format("{:<16} {}\n", key, value);
  out += fmt::format("\n{:<32} {:<9} {:<18} {:>12}\n", "tensor", "dtype", "shape", "values");
  int64_t values = 0;
  for (const auto& [name, tensor] : content.tensors) {
    values += tensor.numel();
    out += fmt::format("{:<32} {:<9} {:<18} {:>12}\n", name, name_of(tensor.dtype()), to_string(tensor.shape()),
                       group_digits(tensor.numel()));
  }
  return out + fmt::format("{} tensors {:>64}\n", content.tensors.size(), group_digits(values));
}

// The plan of a training step of the model file or reference network that `o` names, on a batch of zeros.
std::string plan_text(Options o) {
  const bool named = !std::filesystem::exists(o.model);
  std::unique_ptr<Sequential> model;
  Shape input{28, 28, 1};
  if (named) {
    o.training.model = o.model;
    o.training = resolve(o.training);
    const ModelText text = model_text(o.model, o.training.bn);
    model = build(text.layers, input, {.seed = o.training.seed, .init = text.init});
  } else {
    ModelFile file = open_model(o.model);
    model = std::move(file.model);
    input = file.input;
    o.training = resolve(o.training);
  }
  const Device device = Device::parse(o.training.device);
  model->to(device).train();
  const auto optimizer = make_optimizer(*model, o.training);
  CompiledStep step(
      [&](const std::vector<Tensor>& batch) { return training_step(*model, *optimizer, o.training, batch); },
      {.keep_gradients = false});
  const int64_t n = *o.training.batch_size;
  const Dtype dtype = model->parameters().empty() ? Dtype::float32 : model->parameters()[0].tensor.dtype();
  step({zeros(input.insert(0, n), {dtype, device}), zeros({n}, {Dtype::int32, device})});
  std::vector<std::pair<std::string, Tensor>> names;
  for (const Parameter& p : model->parameters()) names.emplace_back(p.name, p.tensor);
  for (const Buffer& b : model->buffers()) names.emplace_back(b.name, b.tensor);
  return step.why_eager().empty() ? step.plan(names) : step.why_eager() + "\n";
}

int run(const Options& o) {
  if (o.plan) {
    use_device(o.training);
    const std::string text = plan_text(o);
    if (o.output.json)
      print_json({{"model", o.model}, {"plan", split(text, '\n')}});
    else
      print(text);
    return kOk;
  }
  const std::string path = model_path(o.model);
  const SafeTensors content = read_safetensors(path);
  if (o.output.json) {
    print_json(to_json(content, path));
    return kOk;
  }
  print(to_text(content, path));
  if (content.metadata.contains("layers") && content.metadata.contains("input_shape")) {
    const ModelFile file = open_model(o.model);
    print("\n" + summary(*file.model, file.input));
  }
  return kOk;
}

}  // namespace

void add_inspect(CLI::App& program, Action& action) {
  auto o = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("inspect", "List the layers, tensors and metadata of a model file.");
  command->footer(
      "  tandem inspect runs/mine\n"
      "  tandem inspect model.safetensors --json\n"
      "  tandem inspect w3 --plan                       the compiled training step\n");
  command->add_option("MODEL", o->model, "a run directory or a safetensors file; with --plan also w1, w2, w3 ...")
      ->required();
  command->add_flag("--plan", o->plan, "print the kernel calls of a compiled training step");
  add_on_off(*command, "--bn", o->training.bn, "with --plan: with or without batch norm");
  add_integer(*command, "-b,--batch-size", o->training.batch_size, 1, 1'000'000, "with --plan: images a step",
              "128; w1 60");
  add_device_options(*command, o->training);
  add_output_options(*command, o->output);
  command->callback([=, &action] { action = [o] { return run(*o); }; });
}

}  // namespace tandem
