#include "tandem/layers/sequential.h"

#include <fmt/format.h>

#include <algorithm>

#include "tandem/core/error.h"

namespace tandem {

std::string Sequential::automatic_name(const std::string& kind, size_t place) const {
  const auto of_kind = [&](auto& layer) { return layer.second->kind() == kind; };
  return fmt::format("{}{}", kind, 1 + std::count_if(layers_.begin(), layers_.begin() + place, of_kind));
}

Module& Sequential::append(std::unique_ptr<Module> layer, const std::string& name, bool keep_values) {
  if (!layer) throw ValueError(fmt::format("{}: expected a layer, got a null pointer", label("Sequential")));
  const std::string local = name.empty() ? automatic_name(layer->kind(), layers_.size()) : name;
  if (local.find('.') != std::string::npos) {
    throw ValueError(fmt::format("{}: a layer's name must not hold a '.', got \"{}\"", label("Sequential"), local));
  }
  for (const auto& [taken, unused] : layers_) {
    if (taken == local) {
      throw ValueError(fmt::format("{}: the name \"{}\" is taken; give the layer another", label("Sequential"), local));
    }
  }
  layer->set_name(this->name().empty() ? local : this->name() + "." + local);
  layer->train(is_training());
  if (!keep_values) layer->init(seed());
  return *layers_.emplace_back(local, std::move(layer)).second;
}

Module& Sequential::layer(size_t i) const {
  if (i < layers_.size()) return *layers_[i].second;
  throw ValueError(fmt::format("{}: expected the number of one of its {} layers, from 0, got {}", label("Sequential"),
                               layers_.size(), i));
}

Tensor Sequential::forward(const Tensor& x) {
  Tensor y = x;
  for (const auto& [name, layer] : layers_) y = layer->forward(y);
  return y;
}

Shape Sequential::output_shape(const Shape& x) const {
  Shape y = x;
  for (const auto& [name, layer] : layers_) y = layer->output_shape(y);
  return y;
}

std::string Sequential::text() const {
  std::string all;
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Module& layer = *layers_[i].second;
    std::string text = layer.kind() == "sequential" ? "" : layer.text();
    if (text.empty() || layers_[i].first != automatic_name(layer.kind(), i)) return "";
    // build() drops the bias before a bn unless told not to.
    const bool drops = i + 1 < layers_.size() && layers_[i + 1].second->kind() == "bn" &&
                       (layer.kind() == "dense" || layer.kind() == "conv");
    if (drops && text.find(":bias=") == std::string::npos) text += ":bias=on";
    all += (i > 0 ? "," : "") + text;
  }
  return all;
}

void Sequential::members(MemberVisitor& v) {
  for (auto& [name, layer] : layers_) v.child(name, *layer);
}

std::unique_ptr<Module> Sequential::clone() const {
  auto copy = std::make_unique<Sequential>();
  for (const auto& [name, layer] : layers_) copy->layers_.emplace_back(name, layer->clone());
  copy->copy_settings_from(*this);
  return copy;
}

}  // namespace tandem
