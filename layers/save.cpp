// Models to and from files.
#include <fmt/format.h>

#include "tandem/core/error.h"
#include "tandem/core/safetensors.h"
#include "tandem/core/text.h"
#include "tandem/layers/build.h"

namespace tandem {

namespace {

constexpr const char* kFormat = "tandem";
constexpr const char* kVersion = "1";

// "[28, 28, 1]"
Shape parse_shape(const std::string& path, const std::string& text) {
  std::vector<int64_t> extents;
  bool valid = text.size() >= 2 && text.front() == '[' && text.back() == ']';
  if (valid && text.size() > 2) {
    for (const std::string& extent : split(text.substr(1, text.size() - 2), ',')) {
      const auto number = parse_int(extent);
      valid = valid && number.has_value();
      extents.push_back(number.value_or(0));
    }
  }
  if (!valid) {
    throw ModelFileError(
        fmt::format("load_model: {}: expected an input_shape such as [28, 28, 1], got \"{}\"", path, text));
  }
  return Shape(extents);
}

const std::string& required(const std::string& path, const SafeTensors& file, const char* key) {
  const auto found = file.metadata.find(key);
  if (found != file.metadata.end()) return found->second;
  throw ModelFileError(fmt::format(
      "load_model: {}: its metadata has no \"{}\", so the model cannot be rebuilt; build it and load() the values",
      path, key));
}

// The values in a file, in total, and the widest of their floating types.
BuildOptions options_for(const SafeTensors& file) {
  BuildOptions options;
  options.max_values = 0;
  for (const auto& [name, tensor] : file.tensors) {
    options.max_values += tensor.numel();
    if (tensor.dtype() == Dtype::float64) options.dtype = Dtype::float64;
  }
  return options;
}

}  // namespace

void save(Module& model, const std::string& path, const std::vector<std::pair<std::string, std::string>>& metadata) {
  SafeTensors content{model.state_dict(), {{"format", kFormat}, {"format_version", kVersion}}};
  const std::string text = model.kind() == "sequential" ? model.text() : "";
  if (!text.empty()) content.metadata["layers"] = text;
  for (const auto& [key, value] : metadata) {
    if (key == "layers" || !content.metadata.emplace(key, value).second) {
      throw ValueError(fmt::format("save: the metadata \"{}\" is given twice, or is save's own", key));
    }
  }
  write_safetensors(path, content);
}

void load(Module& model, const std::string& path, LoadOptions options) {
  model.load_state_dict(read_safetensors(path).tensors, options.strict, path);
}

std::unique_ptr<Sequential> load_model(const std::string& path) {
  const SafeTensors file = read_safetensors(path);
  const std::string& version = required(path, file, "format_version");
  if (required(path, file, "format") != kFormat || version != kVersion) {
    throw ModelFileError(fmt::format("load_model: {}: expected format {} {}, got {} {}; use the version that wrote it",
                                     path, kFormat, kVersion, file.metadata.at("format"), version));
  }
  const std::string& text = required(path, file, "layers");
  try {
    const NoInit no_init;
    auto model = build(text, parse_shape(path, required(path, file, "input_shape")), options_for(file));
    model->load_state_dict(file.tensors, true, path);
    return model;
  } catch (const ValueError& error) {
    throw ModelFileError(fmt::format("load_model: {}: its layers cannot be built: {}", path, error.what()));
  } catch (const ShapeError& error) {
    throw ModelFileError(fmt::format("load_model: {}: its layers cannot be built: {}", path, error.what()));
  }
}

}  // namespace tandem
