// batch_norm_properties: what holds for any x and dy, by the names that `checks` lists.
#include <fmt/format.h>

#include "batch_norm_layer.h"
#include "tandem/core/ops.h"

namespace tandem::vectors {
namespace {

Json to_json(const Tensor& t) {
  Json data = Json::array();
  for (const double value : t.to(Dtype::float64).to_vector<double>()) data.push_back(value);
  return {{"shape", std::vector<int64_t>(t.shape().begin(), t.shape().end())}, {"data", data}};
}

struct Step {
  Tensor y, dx, xhat;  // xhat: y before gamma and beta
};

// The case's operands, and what its layer makes of them.
struct Subject {
  Case& c;
  Tensor x, dy;
  int axis;               // of the channels
  std::vector<int> rest;  // the other axes

  Tensor y_of(const Tensor& values, bool training = true) const {
    BatchNorm layer = layer_of(c);
    layer.train(training);
    return layer(values).detach();
  }
  Step step(const Tensor& upstream) const {
    BatchNorm layer = layer_of(c);
    const Tensor leaf = x.clone().set_requires_grad(true), y = layer(leaf);
    y.backward(upstream);
    return {y.detach(), leaf.grad(), (y.detach() - beta()) / gamma()};
  }
  Tensor gamma() const { return along(layer_of(c).weight, 1); }
  Tensor beta() const { return along(layer_of(c).bias, 0); }
  void equal(const std::string& quantity, const Tensor& got, const Tensor& want) const {
    c.compare(quantity, "all", to_json(want), got.detach());
  }

 private:
  // A tensor of the channels, or `otherwise` where the layer has none, that broadcasts against x.
  Tensor along(const Tensor& values, double otherwise) const {
    Shape shape = x.shape();
    for (const int a : rest) shape = shape.with(a, 1);
    return values.defined() ? values.detach().reshape(shape)
                            : full(shape, otherwise, {.dtype = x.dtype(), .device = x.device()});
  }
};

Tensor reversed_rows(const Tensor& x) {
  std::vector<int32_t> order;
  for (int64_t i = x.dim(0); i-- > 0;) order.push_back(static_cast<int32_t>(i));
  return gather_rows(x, Tensor::from(order, {x.dim(0)}, x.device()));
}

using Property = void (*)(const Subject&, const std::string& name);
const std::map<std::string, Property> kProperties = {
    {"dx_sums_to_zero",
     [](const Subject& s, const std::string& name) {
       const Tensor total = sum(s.step(s.dy).dx, s.rest);
       s.equal(name, total, zeros_like(total));
     }},
    {"dx_orthogonal_to_xhat",
     [](const Subject& s, const std::string& name) {
       const Step step = s.step(s.dy);
       const Tensor total = sum(step.dx * step.xhat, s.rest);
       s.equal(name, total, zeros_like(total));
     }},
    {"constant_dy_gives_zero_dx",
     [](const Subject& s, const std::string& name) {
       s.equal(name, s.step(full(s.x.shape(), 1.5, {.dtype = s.x.dtype(), .device = s.x.device()})).dx,
               zeros_like(s.x));
     }},
    {"y_has_mean_beta",
     [](const Subject& s, const std::string& name) { s.equal(name, mean(s.y_of(s.x), s.rest, true), s.beta()); }},
    {"y_has_variance_gamma_squared",
     [](const Subject& s, const std::string& name) {
       const Tensor rest = s.y_of(s.x) - s.beta();
       s.equal(name, mean(rest * rest, s.rest, true), s.gamma() * s.gamma());
     }},
    {"eval_rows_independent",
     [](const Subject& s, const std::string& name) {
       const Tensor together = s.y_of(s.x, false);
       for (int64_t i = 0; i < s.x.dim(0); ++i)
         s.equal(name, s.y_of(slice(s.x, 0, i, i + 1), false), slice(together, 0, i, i + 1));
     }},
    {"eval_changes_nothing",
     [](const Subject& s, const std::string& name) {
       BatchNorm layer = layer_of(s.c);
       layer.eval();
       layer(s.x);
       BatchNorm fresh = layer_of(s.c);
       if (state_of(layer) != state_of(fresh)) s.c.fail(name + ": eval changed the state");
       s.c.count_check();
     }},
    {"train_ignores_running_statistics",
     [](const Subject& s, const std::string& name) {
       BatchNorm layer = layer_of(s.c);
       for (Tensor* running : {&layer.running_mean, &layer.running_var})
         if (running->defined()) running->fill(7);
       s.equal(name, layer(s.x), s.y_of(s.x));
     }},
    {"shift_invariant",
     [](const Subject& s, const std::string& name) { s.equal(name, s.y_of(s.x + 3.0), s.y_of(s.x)); }},
    {"scale_invariant",
     [](const Subject& s, const std::string& name) { s.equal(name, s.y_of(s.x * 5.0), s.y_of(s.x)); }},
    {"permutation_equivariant",
     [](const Subject& s, const std::string& name) {
       s.equal(name, s.y_of(reversed_rows(s.x)), reversed_rows(s.y_of(s.x)));
     }},
};

}  // namespace

void check_batch_norm_properties(Case& c) {
  Subject subject{c, c.tensor(c["x"]), c.tensor(c["dy"]), c["channel_axis"].get<int>(), {}};
  for (int a = 0; a < subject.x.rank(); ++a)
    if (a != (subject.axis + subject.x.rank()) % subject.x.rank()) subject.rest.push_back(a);
  for (const Json& name : c["checks"]) {
    const auto found = kProperties.find(name.get<std::string>());
    if (found == kProperties.end()) throw Unsupported(fmt::format("this runner knows no property {}", name.dump()));
    found->second(subject, found->first);
  }
}

}  // namespace tandem::vectors
