#include "tandem/layers/module.h"

#include <fmt/format.h>

#include <functional>
#include <map>

#include "tandem/core/error.h"

namespace tandem {

namespace {

std::string join(const std::string& path, const std::string& name) { return path.empty() ? name : path + "." + name; }

// Calls one function for every parameter, buffer and module below (and with) `root`, with its full name.
struct Walk : MemberVisitor {
  std::function<void(const std::string&, Tensor&, Role, const Init&, int64_t, int64_t)> on_parameter;
  std::function<void(const std::string&, Tensor&, bool)> on_buffer;
  std::function<void(const std::string&, Module&)> on_module;  // after its members

  void from(Module& root, const std::string& path = "") {
    const std::string outer = std::exchange(path_, path);
    root.members(*this);
    if (on_module) on_module(path_, root);
    path_ = outer;
  }

 private:
  void parameter(const char* name, Tensor& tensor, Role role, const Init& init, int64_t in, int64_t out) override {
    if (on_parameter) on_parameter(join(path_, name), tensor, role, init, in, out);
  }
  void buffer(const char* name, Tensor& tensor, bool persistent) override {
    if (on_buffer) on_buffer(join(path_, name), tensor, persistent);
  }
  void child(const std::string& name, Module& module) override { from(module, join(path_, name)); }

  std::string path_;
};

std::vector<Tensor*> all_tensors(Module& module) {
  std::vector<Tensor*> tensors;
  Walk walk;
  walk.on_parameter = [&](auto&, Tensor& t, auto...) { tensors.push_back(&t); };
  walk.on_buffer = [&](auto&, Tensor& t, bool) { tensors.push_back(&t); };
  walk.from(module);
  return tensors;
}

// Each tensor and its gradient become convert(tensor), all or none of them.
void convert_all(Module& module, const std::function<Tensor(const Tensor&)>& convert) {
  struct Change {
    Tensor* tensor;
    Tensor value, grad;
  };
  std::vector<Change> changes;
  for (Tensor* t : all_tensors(module)) {
    const Tensor grad = t->grad();
    changes.push_back({t, convert(t->detach()), grad.defined() ? convert(grad) : grad});
  }
  for (const Change& c : changes) {
    c.tensor->set_data(c.value);
    c.tensor->set_grad(c.grad);
  }
}

thread_local bool init_off = false;

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

}  // namespace

NoInit::NoInit() : before_(std::exchange(init_off, true)) {}
NoInit::~NoInit() { init_off = before_; }

std::unique_ptr<Module> Module::clone() const {
  throw ValueError(
      fmt::format("clone: {} does not say how it is copied; override Module::clone", label(kind().c_str())));
}

std::vector<Parameter> Module::parameters() {
  std::vector<Parameter> result;
  Walk walk;
  walk.on_parameter = [&](auto& name, Tensor& t, Role role, auto&&...) { result.emplace_back(name, t, role); };
  walk.from(*this);
  return result;
}

std::vector<Buffer> Module::buffers() {
  std::vector<Buffer> result;
  Walk walk;
  walk.on_buffer = [&](auto& name, Tensor& t, bool persistent) { result.push_back({name, t, persistent}); };
  walk.from(*this);
  return result;
}

StateDict Module::state_dict() {
  StateDict state;
  Walk walk;
  walk.on_parameter = [&](auto& name, Tensor& t, auto&&...) { state.emplace_back(name, t); };
  walk.on_buffer = [&](auto& name, Tensor& t, bool persistent) {
    if (persistent) state.emplace_back(name, t);
  };
  walk.from(*this);
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
  Walk walk;
  walk.on_parameter = [&](auto& name, Tensor& t, Role, const Init& init, int64_t fan_in, int64_t fan_out) {
    if (!init_off) initialize(t, init, fan_in, fan_out, Stream(seed, "init/" + name));
  };
  walk.on_module = [&](auto&, Module& m) {
    m.seed_ = seed;
    m.on_init();
  };
  walk.from(*this, name_);
}

Module& Module::train(bool on) {
  Walk walk;
  walk.on_module = [&](auto&, Module& m) { m.training_ = on; };
  walk.from(*this);
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
  Walk walk;
  walk.on_module = [](auto& path, Module& m) { m.name_ = path; };
  walk.from(*this, name);
}

std::string Module::label(const char* type) const {
  return name_.empty() ? type : fmt::format("{} \"{}\"", type, name_);
}

void Module::check_alike(const char* type, const Tensor& x, const Tensor& weight) const {
  if (x.dtype() != weight.dtype()) {
    throw ValueError(fmt::format("{}: expected {} of {}, got {}; convert it, or the model, with to()", label(type),
                                 describe("x", x), name_of(weight.dtype()), name_of(x.dtype())));
  }
  if (!(x.device() == weight.device())) {
    throw DeviceError(fmt::format("{}: expected {} on {}, got {}; move it, or the model, with to()", label(type),
                                  describe("x", x), to_string(weight.device()), to_string(x.device())));
  }
}

void Module::copy_state_from(const Module& source) {
  Module& from = const_cast<Module&>(source);  // members() only shows them here
  std::vector<Tensor*> theirs = all_tensors(from), ours = all_tensors(*this);
  std::vector<Module*> their_modules, our_modules;
  Walk walk;
  walk.on_module = [&](auto&, Module& m) { their_modules.push_back(&m); };
  walk.from(from);
  walk.on_module = [&](auto&, Module& m) { our_modules.push_back(&m); };
  walk.from(*this);
  if (theirs.size() != ours.size() || their_modules.size() != our_modules.size()) {
    throw ValueError(fmt::format("clone: {} has other members than its copy", source.label(source.kind().c_str())));
  }
  for (size_t i = 0; i < ours.size(); ++i) {
    const bool requires_grad = theirs[i]->requires_grad();
    ours[i]->set_data(theirs[i]->detach().clone());
    ours[i]->set_grad({});
    ours[i]->set_requires_grad(requires_grad);
  }
  for (size_t i = 0; i < our_modules.size(); ++i) {
    our_modules[i]->name_ = their_modules[i]->name_;
    our_modules[i]->seed_ = their_modules[i]->seed_;
    our_modules[i]->training_ = their_modules[i]->training_;
  }
}

}  // namespace tandem
