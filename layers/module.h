// Module: something with parameters, buffers and a forward pass. Layers, and whole models.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tandem/core/parameter.h"
#include "tandem/core/tensor.h"
#include "tandem/layers/init.h"

namespace tandem {

struct Buffer {
  std::string name;  // "bn1.running_mean"
  Tensor tensor;
  bool persistent;  // part of state_dict() and of files
};
using StateDict = std::vector<std::pair<std::string, Tensor>>;

// What a Module shows of itself to whoever walks it (parameters(), to(), clone() ...).
// Called by Module::members in a fixed order; names are local ("weight"), paths are made by the walker.
class MemberVisitor {
 public:
  virtual ~MemberVisitor() = default;
  // To be trained, the tensor must have been given set_requires_grad(true). fan_in and fan_out scale `init`.
  virtual void parameter(const char* name, Tensor& tensor, Role role, const Init& init, int64_t fan_in,
                         int64_t fan_out) = 0;
  // Moved and cloned with the module; kept in state_dict() if persistent.
  virtual void buffer(const char* name, Tensor& tensor, bool persistent) = 0;
  virtual void child(const std::string& name, class Module& module) = 0;
};

// While one lives, init() and the constructors of layers leave this thread's new parameters undrawn: for
// whoever gives them values next.
class NoInit {
 public:
  NoInit();
  ~NoInit();
  NoInit(const NoInit&) = delete;
  NoInit& operator=(const NoInit&) = delete;

 private:
  bool before_;
};

// Modules move but do not copy; clone() copies deeply. New modules are in training mode. A Sequential gives its
// layers their names and values; a Module of one's own as a whole model must be init(seed)-ed: until then its layers
// have no names, and their values and masks depend on how many modules this thread made before.
class Module {
 public:
  virtual ~Module() = default;
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  // y for x. Implementations call ops or other modules, and throw ShapeError naming the layer.
  virtual Tensor forward(const Tensor& x) = 0;
  Tensor operator()(const Tensor& x) { return forward(x); }

  // The shape of forward's result (axis 0, the batch, included); throws ShapeError if x does not fit.
  virtual Shape output_shape(const Shape& x) const = 0;
  // "dense", "conv", "bn": what unnamed layers are numbered by in a Sequential.
  virtual std::string kind() const = 0;
  // The layer as the builder's text, "dense:512"; see layers/build.h. Empty if it cannot be written so.
  virtual std::string text() const { return ""; }
  // Shows every parameter, buffer and child, always in the same order. Modules without any keep this one.
  virtual void members(MemberVisitor&) {}
  // A deep copy: same values, names and modes, nothing shared, no gradients. Defined as
  // `return copy_of(*this, <constructor arguments>)`; throws ValueError where a user's Module does not.
  virtual std::unique_ptr<Module> clone() const;

  std::vector<std::pair<std::string, Module*>> children();  // those right below, by local name
  std::vector<Parameter> parameters();                      // with full names, "dense1.weight"
  std::vector<Buffer> buffers();
  StateDict state_dict();  // parameters and persistent buffers in order of members; shares storage
  // Copies values in by name, all or nothing; float32 and float64 convert. strict: names must match exactly
  // (but for an absent num_batches_tracked, which is kept); otherwise what is on both sides is taken.
  // Throws ModelFileError saying which name, shape or dtype does not fit. `source` names the origin.
  void load_state_dict(const StateDict& state, bool strict = true, const std::string& source = "the state");

  // Names every module below by its path, draws every parameter anew from `seed` by its full name, and restarts the
  // layers' own streams and statistics.
  void init(uint64_t seed);
  Module& train(bool on = true);
  Module& eval() { return train(false); }
  bool is_training() const { return training_; }
  Module& to(Device device);  // in place, all or nothing: handles held elsewhere follow
  Module& to(Dtype dtype);    // floating parameters and buffers
  void set_requires_grad(bool on);

  // The name in error texts and streams, "bn1" or "block.bn1"; set by the parent, and by init.
  const std::string& name() const { return name_; }
  void set_name(const std::string& name);

 protected:
  Module();
  Module(Module&&) = default;
  Module& operator=(Module&&) = default;
  // `Dense "dense1"`, for error texts.
  std::string label(const char* type) const;
  // What `op` returns; what it throws gets the label before it.
  Tensor labelled(const char* type, const std::function<Tensor()>& op) const;
  // An L made of `arguments`, with everything that `source` and its children hold.
  template <class L, class... Arguments>
  static std::unique_ptr<Module> copy_of(const L& source, Arguments&&... arguments) {
    const NoInit no_init;
    auto copy = std::make_unique<L>(std::forward<Arguments>(arguments)...);
    copy->copy_state_from(source);
    return copy;
  }
  void copy_state_from(const Module& source);
  // Name, seed and mode alone, of this module alone.
  void copy_settings_from(const Module& source);
  // Called by init on every module, after its parameters were drawn.
  virtual void on_init() {}
  uint64_t seed() const { return seed_; }  // the last one given to init; before, one that no other module has

 private:
  std::string name_;
  uint64_t seed_;
  bool training_ = true;
};

// A table as Keras prints it: layer, output shape, parameters (trainable or not, counters left out); then the
// totals. `input` without the batch axis. Throws ShapeError where a layer does not fit the one before.
std::string summary(Module& model, const Shape& input);

// The model's state as safetensors. The metadata is what is given here plus "format" ("tandem"), "format_version"
// ("1") and, for a model that text can describe, "layers". Give {"input_shape", "[28, 28, 1]"} (without the
// batch axis) and load_model (layers/build.h) can rebuild the model from the file alone.
// Throws IoError, or ValueError for metadata of a reserved name; the file is written whole or not at all.
void save(Module& model, const std::string& path,
          const std::vector<std::pair<std::string, std::string>>& metadata = {});
struct LoadOptions {
  bool strict = true;
};
// Copies a file's values into the model as load_state_dict does, all or nothing. Throws ModelFileError.
void load(Module& model, const std::string& path, LoadOptions options = {});

}  // namespace tandem
