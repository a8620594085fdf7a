#include "model_file.h"

#include <fmt/format.h>

#include <filesystem>

#include "tandem/core/safetensors.h"
#include "tandem/core/text.h"
#include "tandem/layers/build.h"

namespace tandem {

namespace fs = std::filesystem;

namespace {

// "[28, 28, 1]", as to_string(Shape) writes it.
std::optional<Shape> parse_shape(const std::string& text) {
  if (text.size() < 3 || text.front() != '[' || text.back() != ']') return {};
  std::vector<int64_t> dims;
  for (const std::string& piece : split(std::string_view(text).substr(1, text.size() - 2), ',')) {
    const auto extent = parse_int(piece);
    if (!extent || *extent < 1 || dims.size() == kMaxRank - 1) return {};
    dims.push_back(*extent);
  }
  return Shape(dims);
}

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
  const auto input = parse_shape(value_or_empty(file.metadata, "input_shape"));
  if (!input) throw ModelFileError(fmt::format("{}: expected an \"input_shape\" such as [28, 28, 1]", file.path));
  file.input = *input;
  file.dataset = value_or_empty(file.metadata, "dataset");
  const std::vector<Parameter> parameters = file.model->parameters();
  file.dtype = parameters.empty() ? "float32" : name_of(parameters[0].tensor.dtype());
  return file;
}

TrainSettings network_of(const std::string& run_or_file) {
  const std::string path = model_path(run_or_file);
  const auto metadata = read_safetensors(path).metadata;
  TrainSettings settings;
  settings.layers = value_or_empty(metadata, "layers");
  settings.model = value_or_empty(metadata, "model");
  settings.bn = value_or_empty(metadata, "bn") != "off";
  if (settings.layers.empty()) {
    throw ModelFileError(fmt::format("{}: its metadata has no \"layers\", so the network is unknown", path));
  }
  if (settings.model.empty()) settings.model = "custom";
  return settings;
}

}  // namespace tandem
