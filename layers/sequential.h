// Sequential: layers one after the other.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tandem/layers/module.h"

namespace tandem {

// Unnamed layers are called kind + ordinal of that kind ("dense1", "bn1", "dense2"), so a Dense keeps its name,
// and with it its initial weights, with or without a BatchNorm before it.
class Sequential : public Module {
 public:
  explicit Sequential(uint64_t seed = 0) { init(seed); }

  // Puts a layer at the end and draws its parameters from the model's seed:
  // model.add<Dense>(784, 512), or with options model.add(Conv2d(1, 32, {.kernel = 5})).
  template <class L, class... Args>
  L& add(Args&&... args) {
    return static_cast<L&>(append(make<L>(std::forward<Args>(args)...)));
  }
  template <class L>
  L& add(L layer) {
    return add<L, L>(std::move(layer));
  }
  // Takes the layer; `name` overrides the automatic one. Throws ValueError if the name is taken or
  // holds a '.'. Draws its parameters from the model's seed unless keep_values.
  Module& append(std::unique_ptr<Module> layer, const std::string& name = "", bool keep_values = false);

  size_t size() const { return layers_.size(); }
  // Layer i; throws ValueError if there is none.
  Module& operator[](size_t i) { return layer(i); }
  const Module& operator[](size_t i) const { return layer(i); }

  Tensor forward(const Tensor& x) override;
  Shape output_shape(const Shape& x) const override;
  std::string kind() const override { return "sequential"; }
  // "dense:512:bias=off,bn,relu": build() makes the same model of it. Empty if a layer cannot be written so.
  std::string text() const override;
  void members(MemberVisitor& v) override;
  std::unique_ptr<Module> clone() const override;

 private:
  template <class L, class... Args>
  static std::unique_ptr<L> make(Args&&... args) {
    const NoInit no_init;  // append draws, once the layer has its name
    return std::make_unique<L>(std::forward<Args>(args)...);
  }
  Module& layer(size_t i) const;
  // Kind + ordinal among the first `place` layers.
  std::string automatic_name(const std::string& kind, size_t place) const;
  std::vector<std::pair<std::string, std::unique_ptr<Module>>> layers_;
};

}  // namespace tandem
