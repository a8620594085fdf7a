// Models from text, and the reference networks.
//
// A text is layers joined by commas, each `kind[:size][:option=value]...`:
//   dense:512[:bias=on|off][:init=INIT]      INIT: he_normal, normal(0, 0.1) ..., see layers/init.h
//   conv:32[:k=3][:s=1][:p=0][:d=1][:g=1][:bias=on|off][:init=INIT]     kernel, stride, padding, dilation, groups
//     (sizes may be HxW, as conv:32:k=3x1)
//   bn[:keras][:eps=1e-5][:momentum=M][:scale=off][:shift=off][:track=off][:axis=-1][:unbiased=on|off]
//     [:one_value=on|off][:zero][:frozen][:rank=2-5]     M: a number in the layer's convention, pytorch(0.1),
//     keras(0.99) or cumulative
//   ln[:eps=1e-5][:scale=off][:shift=off]     gn:8[:eps=1e-5][:scale=off][:shift=off]     layer norm; 8 groups
//   maxpool[:2][:s=2][:p=0][:d=1][:ceil]     sizes may be HxW, as maxpool:2x3
//   avgpool[:2][:s=2][:p=0][:ceil][:count_padding=off]     gap     dropout[:0.5]
//   relu  sigmoid  tanh  flatten
// A Dense that meets an image flattens it first (a Flatten is put in). A Dense or Conv2d whose next layer is
// a bn has no bias unless the text says bias=on: its gradient would be 0.
#pragma once

#include <memory>
#include <string>

#include "tandem/layers/sequential.h"

namespace tandem {

struct BuildOptions {
  uint64_t seed = 0;
  Init init = Init::he_normal();  // of Dense and Conv2d weights that name none
  Dtype dtype = Dtype::float32;
  int64_t max_values = INT64_MAX;  // a model with more parameters and statistics is refused before it is made
};

// `input` without the batch axis, as [28, 28, 1]. Throws ValueError naming the layer text at fault and, for an
// unknown kind or option, the nearest known one; ShapeError where a layer does not fit the one before.
// build(model->text(), input) makes the same layers again.
std::unique_ptr<Sequential> build(const std::string& text, const Shape& input, const BuildOptions& options = {});

// The layers of a named model, "mlp", "w1", "w2", "w3" or "lenet", with or without batch norm, and the
// initialiser that goes with it. Throws ValueError listing the names.
struct ModelText {
  std::string layers;
  Init init;
};
ModelText model_text(const std::string& name, bool batch_norm);

// The same network without its batch norms (bias=off beside a bn becomes on).
std::string without_batch_norm(const std::string& text);

// Rebuilds the model that save() (layers/module.h) wrote with an "input_shape", in the file's dtype, and loads
// its values. Throws ModelFileError.
std::unique_ptr<Sequential> load_model(const std::string& path);

}  // namespace tandem
