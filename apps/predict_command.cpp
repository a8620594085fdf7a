// tandem predict: the class of images from a file.
#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "commands.h"
#include "image_file.h"
#include "model_file.h"
#include "options.h"
#include "tandem/core/autograd.h"
#include "tandem/core/ops.h"
#include "terminal.h"

namespace tandem {
namespace {

using Json = nlohmann::ordered_json;

struct Options {
  TrainSettings settings;
  OutputOptions output;
  std::string model, input;
  int64_t first = 0, count = 0;
};

// The images as the model was trained on them: a data set whose labels nobody looks at.
Dataset read_input(const Options& o, const Shape& expected) {
  const Tensor images = read_images(o.input);
  const Shape size = images.shape().without(0);
  if (size != expected) {
    throw DataError(
        fmt::format("{}: expected images of {}x{} pixels, as the model was trained on, got {}x{}; scale "
                    "them first",
                    o.input, expected[1], expected[0], size[1], size[0]));
  }
  if (o.first >= images.dim(0)) {
    throw UsageError(fmt::format("--first: expected an image number below {}, as many as {} holds, got {}",
                                 images.dim(0), o.input, o.first));
  }
  const int64_t rest = images.dim(0) - o.first;
  const Tensor labels = zeros({images.dim(0)}, {.dtype = Dtype::int32});
  return Dataset::from(images, labels, "input", 1).take(o.first, o.count > 0 ? std::min(o.count, rest) : rest);
}

// One line an image: its number, class, and the likeliest classes.
std::string text_line(int64_t number, const std::vector<double>& p) {
  std::vector<size_t> order(p.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  std::string line = fmt::format("{:>6}  {}  ", number, styled(stdout, Style::bold, fmt::format("{}", order[0])));
  for (size_t i = 0; i < std::min<size_t>(order.size(), 3); ++i) {
    line += fmt::format(" {}: {:.2f} %", order[i], 100 * p[order[i]]);
  }
  return line + "\n";
}

int run(const Options& o) {
  use_device(o.settings);
  const ModelFile file = open_model(o.model);
  if (file.input.rank() != 3 || file.input[2] != 1 || file.output.rank() != 1) {
    throw ModelFileError(
        fmt::format("{}: expected a model from grey images such as [28, 28, 1] to classes such as [10], "
                    "got one from {} to {}",
                    file.path, to_string(file.input), to_string(file.output)));
  }
  const Dataset images = read_input(o, file.input);
  file.model->to(Device::parse(o.settings.device));
  const DataLoader loader(images, {.batch_size = 1000,
                                   .shuffle = false,
                                   .device = Device::parse(o.settings.device),
                                   .dtype = parse_dtype(file.dtype)});
  const NoGrad no_grad;
  Json predictions = Json::array();
  int64_t number = o.first;
  for (int64_t b = 0; b < loader.batches(); ++b) {
    const Tensor logits = (*file.model)(loader.batch(0, b).x);
    const std::vector<int32_t> answers = argmax(logits);
    const std::vector<double> all = softmax(logits.to(Dtype::float64)).to_vector<double>();
    const size_t classes = all.size() / answers.size();
    for (size_t i = 0; i < answers.size(); ++i, ++number) {
      const std::vector<double> p(all.begin() + i * classes, all.begin() + (i + 1) * classes);
      if (o.output.json) {
        predictions.push_back({{"image", number}, {"class", answers[i]}, {"probabilities", p}});
      } else {
        print(text_line(number, p));
      }
    }
  }
  if (o.output.json) {
    print_json({{"model", file.path}, {"input", o.input}, {"predictions", predictions}});
  }
  return kOk;
}

}  // namespace

void add_predict(CLI::App& program, Action& action) {
  auto o = std::make_shared<Options>();
  CLI::App* command = program.add_subcommand("predict", "Print the class of each image in an IDX, PGM or PNG file.");
  command->footer(
      "  tandem predict runs/mine seven.png\n"
      "  tandem predict runs/mine t10k-images-idx3-ubyte.gz --first 40 --count 5 --json\n");
  command->add_option("MODEL", o->model, "a run directory or a model file")->required();
  command->add_option("IMAGES", o->input, "an IDX (raw or .gz), PGM or PNG file; white on black as in MNIST")
      ->required();
  add_integer(*command, "--first", o->first, 0, "of an IDX file: begin at image N");
  add_integer(*command, "--count", o->count, 0, "of an IDX file: at most N images; 0: all");
  add_device_options(*command, o->settings);
  add_output_options(*command, o->output);
  command->callback([=, &action] { action = [o] { return run(*o); }; });
}

}  // namespace tandem
