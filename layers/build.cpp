#include "tandem/layers/build.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <type_traits>

#include "tandem/core/error.h"
#include "tandem/core/text.h"
#include "tandem/layers/activation.h"
#include "tandem/layers/batch_norm.h"
#include "tandem/layers/conv2d.h"
#include "tandem/layers/dense.h"
#include "tandem/layers/group_norm.h"
#include "tandem/layers/layer_norm.h"
#include "tandem/layers/pool.h"

namespace tandem {

namespace {

constexpr size_t kMaxLayers = 10'000;

int64_t to_int(const std::string& name, const std::string& text) {
  if (const auto number = parse_int(text)) return *number;
  throw ValueError(fmt::format("{} must be an integer, got \"{}\"", name, text));
}

double to_double(const std::string& name, const std::string& text) {
  if (const auto number = parse_double(text)) return *number;
  throw ValueError(fmt::format("{} must be a number, got \"{}\"", name, text));
}

// "3", or "2x3" for height and width.
Size2 to_size(const std::string& name, const std::string& text) {
  const size_t x = text.find('x');
  const auto h = parse_int(text.substr(0, x)), w = x < text.size() ? parse_int(text.substr(x + 1)) : h;
  if (!h || !w) throw ValueError(fmt::format("{} must be an integer or HxW, got \"{}\"", name, text));
  return {*h, *w};
}

// One layer of a text, "conv:32:k=5:bias=off": its kind, its size and its options, each asked for by name.
// done() throws if anything was left that nobody asked for.
class LayerText {
 public:
  explicit LayerText(const std::string& text) {
    const std::vector<std::string> fields = split(text, ':');
    kind_ = fields[0];
    for (size_t i = 1; i < fields.size(); ++i) {
      const std::string& field = fields[i];
      const size_t equals = field.find('=');
      if (i == 1 && !field.empty() && std::string("-.0123456789").find(field[0]) != std::string::npos) {
        size_ = field;
      } else if (!options_.emplace(field.substr(0, equals), equals < field.size() ? field.substr(equals + 1) : "on")
                      .second) {
        throw ValueError(fmt::format("option \"{}\" is given twice", field.substr(0, equals)));
      }
    }
  }

  const std::string& kind() const { return kind_; }

  // The size after the kind: "512", "0.5" or "2x3".
  std::string size(const std::string& standard = "") {
    takes_size_ = true;
    if (size_.empty() && standard.empty()) throw ValueError(fmt::format("expected a size, as in \"{}:32\"", kind_));
    return size_.empty() ? standard : size_;
  }
  std::string value(const std::string& name, const std::string& standard) {
    known_.push_back(name);
    const auto option = options_.extract(name);
    return option ? option.mapped() : standard;
  }
  int64_t integer(const std::string& name, int64_t standard) {
    return to_int(name, value(name, std::to_string(standard)));
  }
  Size2 extents(const std::string& name, Size2 standard) { return to_size(name, value(name, to_string(standard))); }
  double number(const std::string& name, double standard) {
    return to_double(name, value(name, fmt::format("{}", standard)));
  }
  bool on_off(const std::string& name, bool standard) {
    const std::string text = value(name, standard ? "on" : "off");
    if (text != "on" && text != "off") throw ValueError(fmt::format("{} must be on or off, got \"{}\"", name, text));
    return text == "on";
  }
  void done() const {
    if (!takes_size_ && !size_.empty()) throw ValueError(fmt::format("{} takes no size, got \"{}\"", kind_, size_));
    if (options_.empty()) return;
    const std::string& name = options_.begin()->first;
    throw ValueError(fmt::format("unknown option \"{}\"{}; {} takes {}", name, did_you_mean(name, known_), kind_,
                                 known_.empty() ? "none" : fmt::format("{}", fmt::join(known_, ", "))));
  }

 private:
  std::string kind_, size_;
  std::map<std::string, std::string> options_;
  std::vector<std::string> known_;
  bool takes_size_ = false;
};

// What a layer is made for.
struct Context {
  const BuildOptions& options;
  Shape x;                   // of its input, with a batch of 1
  bool before_norm = false;  // the next layer is a bn
  int64_t values_left;

  // Refuses a layer of more values than may still be made, before it is.
  void spend(std::initializer_list<int64_t> extents) {
    int64_t values = 1;
    for (const int64_t extent : extents) {
      if (extent < 1) return;  // the layer's constructor says what is wrong
      if (__builtin_mul_overflow(values, extent, &values) || values > values_left) {
        throw ValueError(fmt::format("the model would hold more than {} values", options.max_values));
      }
    }
    values_left -= values;
  }
};

using Made = std::unique_ptr<Module>;

Made make_dense(LayerText& text, Context& context) {
  const int64_t in = context.x[context.x.rank() - 1], out = to_int("the size", text.size());
  DenseOptions o{.bias = text.on_off("bias", !context.before_norm), .dtype = context.options.dtype};
  o.init = parse_init(text.value("init", to_string(context.options.init)));
  text.done();
  context.spend({in + (o.bias ? 1 : 0), out});
  return std::make_unique<Dense>(in, out, o);
}

Made make_conv(LayerText& text, Context& context) {
  const int64_t in = context.x[context.x.rank() - 1], out = to_int("the size", text.size());
  Conv2dLayerOptions o{.dtype = context.options.dtype};
  o.kernel = text.extents("k", o.kernel);
  o.stride = text.extents("s", o.stride);
  o.padding = text.extents("p", o.padding);
  o.dilation = text.extents("d", o.dilation);
  o.groups = text.integer("g", o.groups);
  o.bias = text.on_off("bias", !context.before_norm);
  o.init = parse_init(text.value("init", to_string(context.options.init)));
  text.done();
  if (o.groups >= 1) context.spend({out, o.kernel.h, o.kernel.w, std::max<int64_t>(in / o.groups, 1)});
  if (o.bias) context.spend({out});
  return std::make_unique<Conv2d>(in, out, o);
}

Made make_ln(LayerText& text, Context& context) {
  const int64_t features = context.x[context.x.rank() - 1];
  LayerNormOptions o{.dtype = context.options.dtype};
  o.eps = text.number("eps", o.eps);
  o.scale = text.on_off("scale", o.scale);
  o.shift = text.on_off("shift", o.shift);
  text.done();
  context.spend({o.scale + o.shift, features});
  return std::make_unique<LayerNorm>(features, o);
}

Made make_gn(LayerText& text, Context& context) {
  const int64_t groups = to_int("the size", text.size()), channels = context.x[context.x.rank() - 1];
  GroupNormOptions o{.dtype = context.options.dtype};
  o.eps = text.number("eps", o.eps);
  o.scale = text.on_off("scale", o.scale);
  o.shift = text.on_off("shift", o.shift);
  text.done();
  context.spend({o.scale + o.shift, channels});
  return std::make_unique<GroupNorm>(groups, channels, o);
}

// A number in the layer's own convention, or pytorch(0.1), keras(0.99), cumulative.
Momentum parse_momentum(const std::string& text, bool keras) {
  if (text == "cumulative") return Momentum::cumulative();
  for (const bool named_keras : {false, true}) {
    const std::string prefix = named_keras ? "keras(" : "pytorch(";
    if (text.rfind(prefix, 0) != 0 || text.back() != ')') continue;
    const double number = to_double("momentum", text.substr(prefix.size(), text.size() - prefix.size() - 1));
    return named_keras ? Momentum::keras(number) : Momentum::pytorch(number);
  }
  const double number = to_double("momentum", text);
  return keras ? Momentum::keras(number) : Momentum::pytorch(number);
}

Made make_bn(LayerText& text, Context& context) {
  const bool keras = text.on_off("keras", false);
  BatchNormLayerOptions o = keras ? BatchNormLayerOptions::keras() : BatchNormLayerOptions{};
  o.eps = text.number("eps", o.eps);
  const std::string momentum = text.value("momentum", "");
  if (!momentum.empty()) o.momentum = parse_momentum(momentum, keras);
  o.scale = text.on_off("scale", o.scale);
  o.shift = text.on_off("shift", o.shift);
  o.zero_scale = text.on_off("zero", false);
  o.track_running_stats = text.on_off("track", o.track_running_stats);
  o.frozen = text.on_off("frozen", false);
  if (const std::string ranks = text.value("rank", ""); !ranks.empty()) {
    const std::vector<std::string> ends = split(ranks, '-');
    o.min_rank = static_cast<int>(std::clamp<int64_t>(to_int("rank", ends.front()), 0, 99));
    o.max_rank = static_cast<int>(std::clamp<int64_t>(to_int("rank", ends.back()), 0, 99));
  }
  const int64_t axis = text.integer("axis", -1);
  o.unbiased_running_var = text.on_off("unbiased", o.unbiased_running_var);
  o.allow_one_value = text.on_off("one_value", o.allow_one_value);
  o.dtype = context.options.dtype;
  text.done();
  if (axis < -1 || axis == 0 || axis >= context.x.rank()) {
    throw ShapeError(
        fmt::format("axis must be -1 or 1 to {} for x{}, got {}", context.x.rank() - 1, to_string(context.x), axis));
  }
  o.channel_axis = static_cast<int>(axis);
  const int64_t channels = context.x[axis < 0 ? context.x.rank() - 1 : static_cast<int>(axis)];
  context.spend({o.scale + o.shift + 2 * o.track_running_stats, channels});
  return std::make_unique<BatchNorm>(channels, o);
}

template <class Pool>
Made make_pool(LayerText& text, Context&) {
  Pool2dOptions o;
  o.kernel = to_size("the size", text.size("2"));
  o.stride = text.extents("s", o.kernel);
  o.padding = text.extents("p", o.padding);
  if constexpr (std::is_same_v<Pool, MaxPool2d>) o.dilation = text.extents("d", o.dilation);
  o.ceil_mode = text.on_off("ceil", false);
  if constexpr (std::is_same_v<Pool, AvgPool2d>) o.count_padding = text.on_off("count_padding", true);
  text.done();
  return std::make_unique<Pool>(o);
}

Made make_dropout(LayerText& text, Context&) {
  const double p = to_double("the probability", text.size("0.5"));
  text.done();
  return std::make_unique<Dropout>(p);
}

template <class L>
Made make_plain(LayerText& text, Context&) {
  text.done();
  return std::make_unique<L>();
}

struct Kind {
  const char* name;
  Made (*make)(LayerText&, Context&);
};
constexpr Kind kKinds[] = {
    {"dense", make_dense},
    {"conv", make_conv},
    {"bn", make_bn},
    {"ln", make_ln},
    {"gn", make_gn},
    {"relu", make_plain<ReLU>},
    {"sigmoid", make_plain<Sigmoid>},
    {"tanh", make_plain<Tanh>},
    {"dropout", make_dropout},
    {"flatten", make_plain<Flatten>},
    {"maxpool", make_pool<MaxPool2d>},
    {"avgpool", make_pool<AvgPool2d>},
    {"gap", make_plain<GlobalAvgPool>},
};

Made make_layer(LayerText& text, Context& context) {
  std::vector<std::string> names;
  const NoInit no_init;  // append draws, once the layer has its name
  for (const Kind& kind : kKinds) {
    if (text.kind() == kind.name) return kind.make(text, context);
    names.push_back(kind.name);
  }
  throw ValueError(fmt::format("unknown kind \"{}\"{}; there are {}", text.kind(), did_you_mean(text.kind(), names),
                               fmt::join(names, ", ")));
}

bool is_kind(const std::string& layer, const char* kind) { return split(layer, ':').front() == kind; }

struct NamedModel {
  const char* name;
  const char* layers;
  Init init;
};
const NamedModel kModels[] = {
    {"mlp", "dense:256,bn,relu,dense:128,bn,relu,dense:10", Init::he_normal()},
    // The network of Ioffe and Szegedy 2015, section 4.1.
    {"w1", "dense:100,bn,sigmoid,dense:100,bn,sigmoid,dense:100,bn,sigmoid,dense:10", Init::normal(0, 0.1)},
    {"w2", "dense:512,bn,relu,dense:256,bn,relu,dense:128,bn,relu,dense:10", Init::he_normal()},
    {"w3",
     "conv:32:p=1,bn,relu,conv:32:s=2:p=1,bn,relu,conv:64:p=1,bn,relu,conv:64:s=2:p=1,bn,relu,"
     "flatten,dense:128,bn,relu,dense:10",
     Init::he_normal()},
    // After LeNet-5 (LeCun et al. 1998), with ReLU and max pooling.
    {"lenet",
     "conv:6:k=5:p=2,bn,relu,maxpool:2,conv:16:k=5,bn,relu,maxpool:2,"
     "flatten,dense:120,bn,relu,dense:84,bn,relu,dense:10",
     Init::he_normal()},
};

}  // namespace

std::unique_ptr<Sequential> build(const std::string& text, const Shape& input, const BuildOptions& options) {
  const std::vector<std::string> layers = split(text, ',');
  if (layers.size() > kMaxLayers) {
    throw ValueError(fmt::format("build: expected at most {} layers, got {}", kMaxLayers, layers.size()));
  }
  Context context{.options = options, .x = input.insert(0, 1), .values_left = options.max_values};
  if (context.x.numel() == 0) {
    throw ShapeError(fmt::format("build: expected an input of extents >= 1, got {}", to_string(input)));
  }
  auto model = std::make_unique<Sequential>(options.seed);
  for (size_t i = 0; i < layers.size(); ++i) {
    const auto failed = [&](const char* why) {
      return fmt::format("build: layer {} \"{}\": {}", i + 1, layers[i], why);
    };
    context.before_norm = i + 1 < layers.size() && is_kind(layers[i + 1], "bn");
    try {
      LayerText layer(layers[i]);
      if (layer.kind() == "dense" && context.x.rank() > 2) context.x = model->add<Flatten>().output_shape(context.x);
      context.x = model->append(make_layer(layer, context)).output_shape(context.x);
    } catch (const ValueError& error) {
      throw ValueError(failed(error.what()));
    } catch (const ShapeError& error) {
      throw ShapeError(failed(error.what()));
    }
  }
  return model;
}

ModelText model_text(const std::string& name, bool batch_norm) {
  std::vector<std::string> names;
  for (const NamedModel& model : kModels) {
    if (name == model.name) return {batch_norm ? model.layers : without_batch_norm(model.layers), model.init};
    names.push_back(model.name);
  }
  throw ValueError(fmt::format("model: unknown name \"{}\"{}; there are {}", name, did_you_mean(name, names),
                               fmt::join(names, ", ")));
}

std::string without_batch_norm(const std::string& text) {
  const std::vector<std::string> layers = split(text, ',');
  std::vector<std::string> kept;
  for (size_t i = 0; i < layers.size(); ++i) {
    if (is_kind(layers[i], "bn")) continue;
    std::vector<std::string> fields = split(layers[i], ':');
    if (i + 1 < layers.size() && is_kind(layers[i + 1], "bn")) {
      fields.erase(std::remove(fields.begin(), fields.end(), "bias=off"), fields.end());
    }
    kept.push_back(fmt::format("{}", fmt::join(fields, ":")));
  }
  return fmt::format("{}", fmt::join(kept, ","));
}

}  // namespace tandem
