// tandem eval, predict and inspect on a trained model, and on files that are not what they should be.
#include <zlib.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "../catch.hpp"
#include "program.h"
#include "tandem/core/file.h"
#include "tandem/core/safetensors.h"
#include "tandem/data/digits.h"
#include "tandem/layers/build.h"

using namespace tandem;
using namespace tandem::test;
using Catch::Matchers::Contains;
using Json = nlohmann::json;

namespace {

std::string big_endian(uint32_t n) {
  std::string out;
  for (const int shift : {24, 16, 8, 0}) out += static_cast<char>(n >> shift & 0xff);
  return out;
}

std::string png_chunk(const std::string& type, const std::string& data) {
  const std::string body = type + data;
  const uint32_t crc = static_cast<uint32_t>(crc32(0, reinterpret_cast<const Bytef*>(body.data()), body.size()));
  return big_endian(static_cast<uint32_t>(data.size())) + body + big_endian(crc);
}

// 8 bits a channel; `channels` 1 is grey, 3 is RGB with all three alike.
std::string png(const std::vector<uint8_t>& pixels, uint32_t width, uint32_t height, int channels = 1) {
  std::string rows;
  for (uint32_t y = 0; y < height; ++y) {
    rows += '\0';  // no filter
    for (uint32_t x = 0; x < width; ++x) rows += std::string(channels, static_cast<char>(pixels[y * width + x]));
  }
  std::string packed(compressBound(rows.size()), '\0');
  uLongf size = packed.size();
  compress(reinterpret_cast<Bytef*>(packed.data()), &size, reinterpret_cast<const Bytef*>(rows.data()), rows.size());
  packed.resize(size);
  const std::string header =
      big_endian(width) + big_endian(height) + '\x08' + (channels == 1 ? '\0' : '\x02') + std::string(3, '\0');
  return "\x89PNG\r\n\x1a\n" + png_chunk("IHDR", header) + png_chunk("IDAT", packed) + png_chunk("IEND", "");
}

std::string pgm(const std::vector<uint8_t>& pixels) {
  return "P5\n# a comment\n28 28\n255\n" + std::string(pixels.begin(), pixels.end());
}

std::string plain_pgm(const std::vector<uint8_t>& pixels) {
  std::string out = "P2 28 28 255";
  for (const uint8_t p : pixels) out += "\n" + std::to_string(p);
  return out;
}

// A trained model in "run", a data set in "data", and one image of it as pixels.
struct Workplace {
  TempDir dir;
  Workplace() {
    write_small_mnist(dir.file("data/mnist"), 1200, 300);
    REQUIRE(tandem_program(dir, {"train", "--data", "data", "--layers", "dense:32,bn,relu,dense:10", "--epochs", "3",
                                 "-b", "50", "--out", "run"})
                .exit_code == 0);
  }
  void write(const std::string& name, const std::string& bytes) const { write_file(dir.file(name), bytes); }
  Outcome run(const std::vector<std::string>& words) const { return tandem_program(dir, words); }
  Json json(std::vector<std::string> words) const {
    words.push_back("--json");
    const Outcome outcome = run(words);
    INFO(outcome.err);
    REQUIRE(outcome.exit_code == 0);
    return Json::parse(outcome.out);
  }
};

}  // namespace

TEST_CASE("eval repeats the run's test accuracy and adds a confusion matrix") {
  const Workplace place;
  const Json result = Json::parse(read_text(place.dir.file("run/RESULT.json")));
  const Json e = place.json({"eval", "run", "--data", "data"});
  CHECK(e.at("accuracy") == result.at("test_accuracy"));
  CHECK(e.at("loss") == result.at("test_loss"));
  CHECK(e.at("dataset") == "mnist");
  CHECK(e.at("count") == 300);
  int64_t all = 0, right = 0;
  for (size_t t = 0; t < 10; ++t) {
    for (size_t a = 0; a < 10; ++a) all += e.at("confusion").at(t).at(a).get<int64_t>();
    right += e.at("confusion").at(t).at(t).get<int64_t>();
  }
  CHECK(all == 300);
  CHECK(right == e.at("correct"));
  CHECK(place.json({"eval", "run/model.safetensors", "--data", "data", "--split", "validation"}).at("accuracy") ==
        result.at("validation_accuracy"));
  CHECK(place.json({"eval", "run", "--data", "data", "--split", "train"}).at("count") == 1100);

  const Outcome text = place.run({"eval", "run", "--data", "data"});
  CHECK_THAT(text.out, Contains("accuracy") && Contains("(" + std::to_string(right) + " of 300)"));
  std::istringstream lines(text.out);
  for (std::string line; std::getline(lines, line);) CHECK(line.size() <= 80);
}

TEST_CASE("eval does not swap a data set that is missing for another") {
  const Workplace place;
  const Outcome outcome = place.run({"eval", "run"});
  CHECK(outcome.exit_code == 3);
  CHECK_THAT(outcome.err, Contains("mnist"));
}

TEST_CASE("predict gives one answer for one image, whatever file it is in") {
  const Workplace place;
  const Dataset digits = make_digits(300, 12);
  const std::vector<uint8_t> all = digits.x.to_vector<uint8_t>();
  const std::vector<uint8_t> pixels(all.begin() + 5 * 784, all.begin() + 6 * 784);
  place.write("a.pgm", pgm(pixels));
  place.write("b.pgm", plain_pgm(pixels));
  place.write("c.png", png(pixels, 28, 28));
  place.write("d.png", png(pixels, 28, 28, 3));
  const std::string idx = "data/mnist/t10k-images-idx3-ubyte";

  const Json whole = place.json({"predict", "run", idx}).at("predictions");
  REQUIRE(whole.size() == 300);
  const Json expected = whole[5];
  CHECK(expected.at("image") == 5);
  double sum = 0, largest = 0;
  for (const double p : expected.at("probabilities")) {
    sum += p;
    largest = std::max(largest, p);
  }
  CHECK(std::abs(sum - 1) < 1e-9);
  CHECK(expected.at("probabilities").at(expected.at("class").get<size_t>()) == largest);

  const Json one = place.json({"predict", "run", idx, "--first", "5", "--count", "1"}).at("predictions");
  REQUIRE(one.size() == 1);
  for (const std::string name : {"a.pgm", "b.pgm", "c.png", "d.png"}) {
    INFO(name);
    const Json answer = place.json({"predict", "run", name}).at("predictions").at(0);
    CHECK(answer.at("class") == expected.at("class"));
    CHECK(answer.at("probabilities") == one[0].at("probabilities"));
  }
  int right = 0;
  const std::vector<int32_t> labels = digits.y.to_vector<int32_t>();
  for (size_t i = 0; i < 300; ++i) right += whole[i].at("class") == labels[i];
  CHECK(right == place.json({"eval", "run", "--data", "data"}).at("correct"));

  const Outcome text = place.run({"predict", "run", "c.png"});
  CHECK_THAT(text.out, Contains("     0  " + std::to_string(expected.at("class").get<int>()) + "   "));
}

TEST_CASE("Images that cannot be used are refused with the reason") {
  const Workplace place;
  const std::vector<uint8_t> pixels(30 * 20, 7);
  const std::string good = png(std::vector<uint8_t>(784, 9), 28, 28);
  std::string flipped = good;
  flipped[45] = static_cast<char>(flipped[45] ^ 0x55);
  place.write("wide.png", png(pixels, 30, 20));
  place.write("cut.png", good.substr(0, good.size() / 2));
  place.write("flipped.png", flipped);
  place.write("huge.png",
              "\x89PNG\r\n\x1a\n" +
                  png_chunk("IHDR", big_endian(100000) + big_endian(100000) + '\x08' + std::string(4, '\0')) +
                  png_chunk("IDAT", "") + png_chunk("IEND", ""));
  place.write("short.pgm", "P5 28 28 255\nxx");
  place.write("deep.pgm", "P5 28 28 65535\n" + std::string(1568, 'x'));
  place.write("empty.pgm", "P5");
  place.write("photo.jpg", "\xff\xd8\xff\xe0");
  place.write("nothing.png", "");
  const std::vector<std::pair<std::string, std::string>> wrong = {
      {"wide.png",
       "wide.png: expected images of 28x28 pixels, as the model was trained on, got 30x20; scale them first"},
      {"cut.png", "cut.png: damaged PNG image: "},
      {"flipped.png", "flipped.png: damaged PNG image: "},
      {"huge.png", "huge.png: expected an image of at most 4096x4096 pixels, got 100000x100000"},
      {"short.pgm", "short.pgm: expected 784 bytes for 28x28 pixels, got 2"},
      {"deep.pgm", "deep.pgm: expected a PGM image of 8 bits, with a largest value of 1 to 255, got 65535"},
      {"empty.pgm", "empty.pgm: expected a PGM image's width at byte 2"},
      {"photo.jpg", "photo.jpg: expected an IDX, PGM or PNG file, got 4 bytes that begin with ff d8 ff e0"},
      {"nothing.png", "nothing.png: expected an IDX, PGM or PNG file, got 0 bytes"},
      {"absent.png", "cannot read absent.png: No such file or directory"},
      {"data/mnist/t10k-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"},
  };
  for (const auto& [name, sentence] : wrong) {
    INFO(name);
    const Outcome outcome = place.run({"predict", "run", name});
    CHECK(outcome.exit_code == 3);
    CHECK(outcome.out.empty());
    CHECK_THAT(outcome.err, Catch::Matchers::StartsWith("tandem: ") && Contains(sentence));
  }
  const Outcome past = place.run({"predict", "run", "data/mnist/t10k-images-idx3-ubyte", "--first", "300"});
  CHECK(past.exit_code == 2);
  CHECK_THAT(past.err, Contains("--first: expected an image number below 300"));
}

TEST_CASE("Model files that are damaged or no model are exit code 4 for every command") {
  const Workplace place;
  const std::string model = read_text(place.dir.file("run/model.safetensors"));
  place.write("cut.safetensors", model.substr(0, model.size() / 2));
  place.write("text.safetensors", "no model");
  place.write("empty.safetensors", "");
  for (const std::string name : {"cut.safetensors", "text.safetensors", "empty.safetensors", "absent.safetensors"}) {
    for (const std::vector<std::string>& words :
         std::vector<std::vector<std::string>>{{"eval", name, "--data", "data"},
                                               {"predict", name, "x"},
                                               {"inspect", name},
                                               {"train", "--data", "data", "--from", name, "--out", "again"}}) {
      INFO(words[0] << " " << name);
      const Outcome outcome = place.run(words);
      CHECK(outcome.exit_code == 4);
      CHECK_THAT(outcome.err, Contains(name));
    }
  }
  CHECK(!exists(place.dir.file("again")));
}

TEST_CASE("Model files of another network or data set are refused by every command that cannot use them") {
  const Workplace place;
  const SafeTensors good = read_safetensors(place.dir.file("run/model.safetensors"));
  const auto write = [&](const std::string& name, const std::string& key, const std::string& value) {
    SafeTensors file = good;
    file.metadata[key] = value;
    write_safetensors(place.dir.file(name), file);
  };
  write("layers.st", "layers", "dense:32,rleu,dense:10");
  write("model.st", "model", "w9");
  write("input.st", "input_shape", "[14, 56, 1]");
  write("digits.st", "dataset", "my digits");
  {
    const auto model = build("flatten,dense:5", {28, 28, 1});
    save(*model, place.dir.file("five.st"), {{"input_shape", "[28, 28, 1]"}, {"dataset", "mnist"}});
    const auto flat = build("dense:10", {784});
    save(*flat, place.dir.file("flat.st"), {{"input_shape", "[784]"}, {"dataset", "mnist"}});
  }
  const auto refused = [&](std::vector<std::string> words, int code, const std::string& sentence) {
    const Outcome outcome = place.run(words);
    INFO(words[0] << " " << words[1] << ": " << outcome.err);
    CHECK(outcome.exit_code == code);
    CHECK_THAT(outcome.err, Contains(sentence));
  };
  const std::string image = "data/mnist/t10k-images-idx3-ubyte";
  for (const std::string name : {"layers.st", "model.st", "input.st", "five.st", "flat.st"}) {
    refused({"train", "--from", name, "--data", "data", "--out", "again"}, 4, name);
    refused({"eval", name, "--data", "data"}, 4, name);
  }
  for (const std::string name : {"layers.st", "model.st", "flat.st"}) refused({"predict", name, image}, 4, name);
  CHECK(!exists(place.dir.file("again")));
  refused({"eval", "five.st", "--data", "data"}, 4,
          "five.st: expected a model from [28, 28, 1] to at least [10], for mnist, got one from [28, 28, 1] to [5]");
  refused({"eval", "digits.st", "--data", "data"}, 2,
          "--dataset: expected mnist, fashion-mnist or digits, as digits.st was trained on 'my digits'");
  CHECK(place.run({"eval", "digits.st", "--data", "data", "--dataset", "mnist"}).exit_code == 0);
}

TEST_CASE("inspect lists metadata, tensors and layers") {
  const Workplace place;
  const Json json = place.json({"inspect", "run"});
  CHECK(json.at("metadata").at("layers") == "flatten,dense:32:bias=off,bn,relu,dense:10");
  CHECK(json.at("metadata").at("dataset") == "mnist");
  CHECK(json.at("metadata").at("normalisation") == "x / 255");
  CHECK(json.at("metadata").at("input_shape") == "[28, 28, 1]");
  CHECK(json.at("tensors").size() == 8);
  const Json weight = {{"name", "dense1.weight"}, {"dtype", "float32"}, {"shape", {32, 784}}};
  CHECK(std::count(json.at("tensors").begin(), json.at("tensors").end(), weight) == 1);
  const Outcome text = place.run({"inspect", "run/model.safetensors"});
  CHECK_THAT(text.out, Contains("bn1.running_mean") && Contains("[32, 784]") && Contains("25,088"));
}
