// The program's model files: the library's safetensors with what eval, predict and train --from need to know.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "tandem/layers/sequential.h"
#include "trainer.h"

namespace tandem {

// Writes the model that `settings` describe, trained on `data`. Throws IoError.
void save_model(Module& model, const std::string& path, const TrainSettings& settings, const Dataset& data);

// The model file meant by a user's RUN or FILE: a folder means its model.safetensors. Throws ModelFileError.
std::string model_path(const std::string& run_or_file);

struct ModelFile {
  std::string path;
  std::unique_ptr<Sequential> model;  // on the CPU, in eval mode
  Shape input, output;                // of one image and its answer: [28, 28, 1], [10]
  std::string dataset, dtype;
  std::string network;  // w2 ..., or custom
  std::map<std::string, std::string> metadata;
};
// Rebuilds a model from its file. Throws ModelFileError.
ModelFile open_model(const std::string& run_or_file);
// Throws ModelFileError unless the model takes images of this data set and has an answer for each of its classes.
void require_fit(const ModelFile& file, const Dataset& data);

}  // namespace tandem
