#include "image_file.h"

#include <fmt/format.h>
#include <png.h>

#include <algorithm>
#include <string_view>

#include "tandem/core/error.h"
#include "tandem/core/file.h"
#include "tandem/data/idx.h"

namespace tandem {

namespace {

constexpr int64_t kMaxSide = 4096;

void check_size(const std::string& path, int64_t width, int64_t height) {
  if (width < 1 || height < 1 || width > kMaxSide || height > kMaxSide) {
    throw DataError(fmt::format("{}: expected an image of at most {}x{} pixels, got {}x{}", path, kMaxSide, kMaxSide,
                                width, height));
  }
}

// ---- PGM (netpbm): "P5" or "P2", width, height, largest value; then bytes, or numbers in text

// Reads the numbers of a header and of P2's pixels; '#' begins a comment.
class PgmReader {
 public:
  PgmReader(std::string_view bytes, const std::string& path) : bytes_(bytes), path_(path) {}

  int64_t number(const char* what) {
    while (at_ < bytes_.size() && (is_space(bytes_[at_]) || bytes_[at_] == '#')) {
      if (bytes_[at_] != '#') {
        ++at_;
      } else {
        at_ = std::min(bytes_.find('\n', at_), bytes_.size());
      }
    }
    int64_t value = 0;
    const size_t begin = at_;
    for (; at_ < bytes_.size() && bytes_[at_] >= '0' && bytes_[at_] <= '9' && value <= 1'000'000; ++at_) {
      value = 10 * value + (bytes_[at_] - '0');
    }
    if (at_ == begin) throw DataError(fmt::format("{}: expected a PGM image's {} at byte {}", path_, what, at_));
    return value;
  }
  std::string_view rest() const { return bytes_.substr(std::min(at_ + 1, bytes_.size())); }  // after one space

 private:
  static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
  std::string_view bytes_;
  const std::string& path_;
  size_t at_ = 2;
};

Tensor read_pgm(std::string_view bytes, const std::string& path) {
  PgmReader reader(bytes, path);
  const int64_t width = reader.number("width"), height = reader.number("height"), top = reader.number("largest value");
  check_size(path, width, height);
  if (top < 1 || top > 255) {
    throw DataError(
        fmt::format("{}: expected a PGM image of 8 bits, with a largest value of 1 to 255, got {}", path, top));
  }
  std::vector<uint8_t> pixels(static_cast<size_t>(width * height));
  const bool text = bytes[1] == '2';
  const std::string_view data = reader.rest();
  if (!text && data.size() != pixels.size()) {
    throw DataError(
        fmt::format("{}: expected {} bytes for {}x{} pixels, got {}", path, pixels.size(), width, height, data.size()));
  }
  for (size_t i = 0; i < pixels.size(); ++i) {
    const int64_t value = text ? reader.number("pixel") : static_cast<uint8_t>(data[i]);
    if (value > top)
      throw DataError(fmt::format("{}: pixel {} is {}, above the largest value {}", path, i, value, top));
    pixels[i] = static_cast<uint8_t>((value * 255 + top / 2) / top);
  }
  return Tensor::from(pixels, {1, height, width, 1});
}

// ---- PNG, by libpng's simplified interface

Tensor read_png(std::string_view bytes, const std::string& path) {
  png_image image{};
  image.version = PNG_IMAGE_VERSION;
  const auto fail = [&] {
    const std::string reason = image.message;
    png_image_free(&image);
    throw DataError(fmt::format("{}: damaged PNG image: {}", path, reason));
  };
  if (!png_image_begin_read_from_memory(&image, bytes.data(), bytes.size())) fail();
  const int64_t width = image.width, height = image.height;
  if (width > kMaxSide || height > kMaxSide) png_image_free(&image);
  check_size(path, width, height);
  image.format = PNG_FORMAT_GRAY;
  std::vector<uint8_t> pixels(PNG_IMAGE_SIZE(image));
  const png_color black{};
  if (!png_image_finish_read(&image, &black, pixels.data(), 0, nullptr) || PNG_IMAGE_FAILED(image)) fail();
  return Tensor::from(pixels, {1, height, width, 1});
}

}  // namespace

Tensor read_images(const std::string& path) {
  std::vector<uint8_t> content;
  try {
    content = read_file(path);
  } catch (const IoError& e) {
    throw DataError(e.what());
  }
  const std::string_view bytes(reinterpret_cast<const char*>(content.data()), content.size());
  if (bytes.starts_with("\x89PNG")) return read_png(bytes, path);
  if (bytes.starts_with("P5") || bytes.starts_with("P2")) return read_pgm(bytes, path);
  if (bytes.starts_with(std::string_view("\0\0", 2)) || bytes.starts_with("\x1f\x8b")) {
    const Tensor images = read_idx(path, 3);
    return images.reshape({images.dim(0), images.dim(1), images.dim(2), 1});
  }
  const size_t shown = std::min<size_t>(content.size(), 4);
  throw DataError(fmt::format("{}: expected an IDX, PGM or PNG file, got {} bytes that begin with {:02x}", path,
                              content.size(), fmt::join(content.begin(), content.begin() + shown, " ")));
}

}  // namespace tandem
