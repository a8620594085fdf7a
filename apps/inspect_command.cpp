// tandem inspect: what a model file holds.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "model_file.h"
#include "options.h"
#include "tandem/core/safetensors.h"
#include "tandem/core/text.h"
#include "terminal.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  OutputOptions output;
  std::string model;
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

int run(const Options& o) {
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
      "  tandem inspect model.safetensors --json\n");
  command->add_option("MODEL", o->model, "a run directory or a safetensors file")->required();
  add_output_options(*command, o->output);
  command->callback([=, &action] { action = [o] { return run(*o); }; });
}

}  // namespace tandem
