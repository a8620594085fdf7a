#include "tandem/layers/module.h"

#include <fmt/format.h>

#include <functional>
#include <map>

#include "tandem/core/compile.h"
#include "tandem/core/error.h"

namespace tandem {

namespace {

std::string join(const std::string& path, const std::string& name) { return path.empty() ? name : path + "." + name; }

// What a module and those below it show, in order, with full names.
struct Members : MemberVisitor {
  struct Value {
    std::string name;
    Tensor* tensor;
    bool persistent, is_parameter;
    Role role{};
    Init init{};
    int64_t fan_in = 0, fan_out = 0;
  };
  struct Part {
    std::string name;
    Module* module;
    int depth;  // 0: the root
  };
  std::vector<Value> values;
  std::vector<Part> modules;  // each after those below it

  explicit Members(Module& root, const std::string& path = "") { visit(root, path); }

 private:
  void parameter(const char* name, Tensor& tensor, Role role, const Init& init, int64_t in, int64_t out) override {
    values.push_back({join(path_, name), &tensor, true, true, role, init, in, out});
  }
  void buffer(const char* name, Tensor& tensor, bool persistent) override {
    values.push_back({join(path_, name), &tensor, persistent, false});
  }
  void child(const std::string& name, Module& module) override {
    ++depth_;
    visit(module, join(path_, name));
    --depth_;
  }
  void visit(Module& module, const std::string& path) {
    const std::string outer = std::exchange(path_, path);
    module.members(*this);
    modules.push_back({path, &module, depth_});
    path_ = outer;
  }

  std::string path_;
  int depth_ = 0;
};

// Each tensor and its gradient become convert(tensor), all or none of them.
void convert_all(Module& module, const std::function<Tensor(const Tensor&)>& convert) {
  struct Change {
    Tensor* tensor;
    Tensor value, grad;
  };
  std::vector<Change> changes;
  for (const auto& value : Members(module).values) {
    const Tensor grad = value.tensor->grad();
    changes.push_back({value.tensor, convert(value.tensor->detach()), grad.defined() ? convert(grad) : grad});
  }
  for (const Change& c : changes) {
    c.tensor->set_data(c.value);
    c.tensor->set_grad(c.grad);
  }
}

thread_local bool init_off = false;
thread_local uint64_t modules_made = 0;

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

NoInit::NoInit() : before_(std::exchange(init_off, true)) {}
NoInit::~NoInit() { init_off = before_; }

Module::Module() : seed_(modules_made++) {}

std::unique_ptr<Module> Module::clone() const {
  throw ValueError(
      fmt::format("clone: {} does not say how it is copied; override Module::clone", label(kind().c_str())));
}

std::vector<std::pair<std::string, Module*>> Module::children() {
  std::vector<std::pair<std::string, Module*>> result;
  for (const auto& part : Members(*this).modules) {
    if (part.depth == 1) result.emplace_back(part.name, part.module);
  }
  return result;
}

std::vector<Parameter> Module::parameters() {
  std::vector<Parameter> result;
  for (const auto& value : Members(*this).values) {
    if (value.is_parameter) result.emplace_back(value.name, *value.tensor, value.role);
  }
  return result;
}

std::vector<Buffer> Module::buffers() {
  std::vector<Buffer> result;
  for (const auto& value : Members(*this).values) {
    if (!value.is_parameter) result.push_back({value.name, *value.tensor, value.persistent});
  }
  return result;
}

StateDict Module::state_dict() {
  StateDict state;
  for (const auto& value : Members(*this).values) {
    if (value.persistent) state.emplace_back(value.name, *value.tensor);
  }
  return state;
}

void Module::load_state_dict(const StateDict& state, bool strict, const std::string& source) {
  std::map<std::string, Tensor> given;
  for (const auto& [name, tensor] : state) {
    if (!given.emplace(name, tensor).second) {
      throw ModelFileError(fmt::format("load: {} holds \"{}\" twice", source, name));
    }
  }
  StateDict wanted = state_dict();
  const std::string sizes = fmt::format("it holds {} tensors, the model wants {}", given.size(), wanted.size());
  std::vector<std::pair<Tensor, Tensor>> copies;  // to, from
  for (auto& [name, tensor] : wanted) {
    const auto found = given.find(name);
    if (found == given.end()) {
      if (!strict || ends_with(name, "num_batches_tracked")) continue;
      throw ModelFileError(fmt::format("load: {} has no \"{}\"; {}", source, name, sizes));
    }
    const Tensor& value = found->second;
    if (value.shape() != tensor.shape()) {
      throw ModelFileError(fmt::format("load: \"{}\" is {} in {}, the model wants {}", name, to_string(value.shape()),
                                       source, to_string(tensor.shape())));
    }
    if (value.dtype() != tensor.dtype() && !(is_floating(value.dtype()) && is_floating(tensor.dtype()))) {
      throw ModelFileError(fmt::format("load: \"{}\" is {} in {}, the model wants {}", name, name_of(value.dtype()),
                                       source, name_of(tensor.dtype())));
    }
    copies.emplace_back(tensor, value.detach());
    given.erase(found);
  }
  if (strict && !given.empty()) {
    throw ModelFileError(
        fmt::format("load: {} has \"{}\", which the model has not; {}", source, given.begin()->first, sizes));
  }
  for (auto& [to, from] : copies) to.copy_from(from);
}

void Module::init(uint64_t seed) {
  const Members all(*this, name_);
  for (const auto& value : all.values) {
    if (!value.is_parameter || init_off) continue;
    initialize(*value.tensor, value.init, value.fan_in, value.fan_out, Stream(seed, "init/" + value.name));
  }
  for (const auto& part : all.modules) {
    part.module->name_ = part.name;
    part.module->seed_ = seed;
    part.module->on_init();
  }
}

Module& Module::train(bool on) {
  for (const auto& part : Members(*this).modules) {
    if (part.module->training_ != on) structure_changed();
    part.module->training_ = on;
  }
  return *this;
}

Module& Module::to(Device device) {
  require_device(device);
  convert_all(*this, [&](const Tensor& t) { return t.to(device); });
  return *this;
}

Module& Module::to(Dtype dtype) {
  if (!is_floating(dtype)) {
    throw ValueError(fmt::format("to: a model computes in float32 or float64, got {}", name_of(dtype)));
  }
  convert_all(*this, [&](const Tensor& t) { return is_floating(t.dtype()) ? t.to(dtype) : t; });
  return *this;
}

void Module::set_requires_grad(bool on) {
  for (Parameter& p : parameters()) p.tensor.set_requires_grad(on);
}

void Module::set_name(const std::string& name) {
  for (const auto& part : Members(*this, name).modules) part.module->name_ = part.name;
}

std::string Module::label(const char* type) const {
  return name_.empty() ? type : fmt::format("{} \"{}\"", type, name_);
}

Tensor Module::labelled(const char* type, const std::function<Tensor()>& op) const {
  const auto text = [&](const Error& error) { return fmt::format("{}: {}", label(type), error.what()); };
  try {
    return op();
  } catch (const ShapeError& error) {
    throw ShapeError(text(error));
  } catch (const ValueError& error) {
    throw ValueError(text(error));
  } catch (const DeviceError& error) {
    throw DeviceError(text(error));
  }
}

void Module::copy_state_from(const Module& source) {
  const Members theirs(const_cast<Module&>(source)), ours(*this);  // members() only shows them here
  if (theirs.values.size() != ours.values.size() || theirs.modules.size() != ours.modules.size()) {
    throw ValueError(fmt::format("clone: {} has other members than its copy", source.label(source.kind().c_str())));
  }
  for (size_t i = 0; i < ours.values.size(); ++i) {
    Tensor &to = *ours.values[i].tensor, &from = *theirs.values[i].tensor;
    to.set_data(from.detach().clone());
    to.set_grad({});
    to.set_requires_grad(from.requires_grad());
  }
  for (size_t i = 0; i < ours.modules.size(); ++i) ours.modules[i].module->copy_settings_from(*theirs.modules[i].module);
}

void Module::copy_settings_from(const Module& source) {
  name_ = source.name_;
  seed_ = source.seed_;
  training_ = source.training_;
}

}  // namespace tandem
