#include <fmt/format.h>

#include "tandem/core/text.h"
#include "tandem/layers/sequential.h"

namespace tandem {

namespace {

struct Counts {
  int64_t trainable = 0, fixed = 0;
};

Counts count(Module& module) {
  Counts counts;
  for (const Parameter& p : module.parameters()) {
    (p.tensor.requires_grad() ? counts.trainable : counts.fixed) += p.tensor.numel();
  }
  for (const Buffer& b : module.buffers()) {
    if (is_floating(b.tensor.dtype())) counts.fixed += b.tensor.numel();
  }
  return counts;
}

// Cuts to `width` and pads, so that the table stays within 80 columns whatever the names are.
std::string cell(const std::string& text, size_t width) {
  return fmt::format("{:<{}}", text.size() <= width ? text : text.substr(0, width - 2) + "..", width);
}

std::string batch_shape(const Shape& x) {
  std::string text = "[N";
  for (int axis = 1; axis < x.rank(); ++axis) text += fmt::format(", {}", x[axis]);
  return text + "]";
}

}  // namespace

std::string summary(Module& model, const Shape& input) {
  const std::string line(72, '-');
  std::string table = fmt::format("{}{}{}{:>14}\n{}\n", cell("Layer", 20), cell("Kind", 12), cell("Output shape", 26),
                                  "Parameters", line);
  const auto row = [&](const std::string& name, Module& m, const std::string& shape) {
    const Counts c = count(m);
    table += fmt::format("{} {} {} {:>13}\n", cell(name, 19), cell(m.kind(), 11), cell(shape, 25),
                         group_digits(c.trainable + c.fixed));
  };
  Shape x = input.insert(0, 1);
  if (dynamic_cast<Sequential*>(&model)) {
    for (const auto& [name, layer] : model.children()) row(name, *layer, batch_shape(x = layer->output_shape(x)));
  } else {  // only a Sequential says in which order its layers run
    for (const auto& [name, layer] : model.children()) row(name, *layer, "?");
    row(model.name(), model, batch_shape(model.output_shape(x)));
  }
  const Counts all = count(model);
  return table + fmt::format("{}\n{:<58}{:>14}\n{:<58}{:>14}\n{:<58}{:>14}\n", line, "Total parameters",
                             group_digits(all.trainable + all.fixed), "Trainable", group_digits(all.trainable),
                             "Non-trainable", group_digits(all.fixed));
}

}  // namespace tandem
