#include "model_file.h"

#include <fmt/format.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "tandem/core/safetensors.h"
#include "tandem/layers/build.h"

namespace tandem {

namespace fs = std::filesystem;

namespace {

std::string value_or_empty(const std::map<std::string, std::string>& metadata, const std::string& key) {
  const auto found = metadata.find(key);
  return found == metadata.end() ? "" : found->second;
}

}  // namespace

void save_model(Module& model, const std::string& path, const TrainSettings& settings, const Dataset& data) {
  save(model, path,
       {{"input_shape", to_string(data.sample_shape())},
        {"normalisation", "x / 255"},
        {"dataset", data.name},
        {"model", settings.model},
        {"bn", settings.bn ? "on" : "off"}});
}

std::string model_path(const std::string& run_or_file) {
  std::error_code error;
  const fs::file_status status = fs::status(run_or_file, error);
  if (!fs::exists(status)) {
    throw ModelFileError(fmt::format("{}: expected a run directory or a model file, there is none", run_or_file));
  }
  if (!fs::is_directory(status)) return run_or_file;
  const std::string path = (fs::path(run_or_file) / "model.safetensors").string();
  if (!fs::exists(path, error)) {
    throw ModelFileError(
        fmt::format("{}: expected model.safetensors in this folder, there is none; did its run end?", run_or_file));
  }
  return path;
}

ModelFile open_model(const std::string& run_or_file) {
  ModelFile file;
  file.path = model_path(run_or_file);
  file.model = load_model(file.path);
  file.model->eval();
  file.metadata = read_safetensors(file.path).metadata;
  // load_model has checked it.
  file.input = Shape(nlohmann::json::parse(file.metadata.at("input_shape")).get<std::vector<int64_t>>());
  file.output = file.model->output_shape(file.input.insert(0, 1)).without(0);
  file.dataset = value_or_empty(file.metadata, "dataset");
  const std::vector<Parameter> parameters = file.model->parameters();
  file.dtype = parameters.empty() ? "float32" : name_of(parameters[0].tensor.dtype());
  file.network = value_or_empty(file.metadata, "model");
  if (file.network.empty()) file.network = "custom";
  try {
    if (file.network != "custom") model_text(file.network, true);
  } catch (const ValueError& e) {
    throw ModelFileError(fmt::format("{}: its metadata names a model that there is not: {}", file.path, e.what()));
  }
  return file;
}

void require_fit(const ModelFile& file, const Dataset& data) {
  const bool answers = file.output.rank() == 1 && file.output[0] >= data.classes;
  if (file.input == data.sample_shape() && answers) return;
  throw ModelFileError(fmt::format("{}: expected a model from {} to at least [{}], for {}, got one from {} to {}",
                                   file.path, to_string(data.sample_shape()), data.classes, data.name,
                                   to_string(file.input), to_string(file.output)));
}

}  // namespace tandem
