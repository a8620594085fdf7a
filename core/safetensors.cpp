#include "tandem/core/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "tandem/core/error.h"
#include "tandem/core/file.h"

namespace tandem {

namespace {

using nlohmann::json;

constexpr uint64_t kMaxHeader = 100'000'000;
constexpr const char* kMetadata = "__metadata__";

constexpr std::pair<const char*, Dtype> kDtypes[] = {{"F32", Dtype::float32},
                                                     {"F64", Dtype::float64},
                                                     {"I32", Dtype::int32},
                                                     {"I64", Dtype::int64},
                                                     {"U8", Dtype::uint8}};

// What the header says of one tensor; bytes [begin, end) of the data part.
struct Entry {
  std::string name;
  Dtype dtype = Dtype::float32;
  Shape shape;
  uint64_t begin = 0, end = 0;
};

// Reads one file; every check throws a sentence of its own that names the file.
class Reader {
 public:
  explicit Reader(const std::string& path) : path_(path), file_(path) {}

  SafeTensors read() {
    const json header = parse(header_text());
    SafeTensors content;
    std::vector<Entry> entries;
    for (const auto& [name, value] : header.items()) {
      if (name == kMetadata) {
        content.metadata = metadata(value);
      } else {
        entries.push_back(entry(name, value));
      }
    }
    std::stable_sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) {
      return std::pair(a.begin, a.end) < std::pair(b.begin, b.end);
    });
    check_cover(entries);
    for (const Entry& e : entries) content.tensors.emplace_back(e.name, tensor(e));
    return content;
  }

 private:
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> text, Args&&... args) const {
    throw ModelFileError(fmt::format("safetensors: {}: {}", path_, fmt::format(text, std::forward<Args>(args)...)));
  }

  // The JSON between the length and the data, without its padding.
  std::string header_text() {
    if (file_.size() < 8) fail("expected at least the 8 bytes of the header's length, the file has {}", file_.size());
    uint64_t length;
    file_.read(0, &length, 8);
    if (length > kMaxHeader) fail("the header's length must be at most {}, got {}", kMaxHeader, length);
    if (length > file_.size() - 8) {
      fail("the header's length is {}, but only {} bytes follow it; the file is cut short", length, file_.size() - 8);
    }
    data_begin_ = 8 + length;
    std::string text(length, '\0');
    file_.read(8, text.data(), length);
    if (text.empty() || text.front() != '{') fail("the header must begin with '{{'");
    const size_t last = text.find_last_not_of(' ');
    if (text[last] != '}')
      fail("the header must end with '}}' and spaces, got byte 0x{:02x}", static_cast<uint8_t>(text[last]));
    return text.substr(0, last + 1);
  }

  // JSON objects may repeat a key; this format may not. Nothing in it nests deeper than
  // {"name": {"shape": [..]}}, and a hostile header must not make the parser build a tower.
  json parse(const std::string& text) const {
    std::vector<std::set<std::string>> seen;
    auto event = [&](int depth, json::parse_event_t event, json& value) {
      const bool opens = event == json::parse_event_t::object_start || event == json::parse_event_t::array_start;
      if (opens && depth > 2) fail("the header nests deeper than the format does");
      if (event == json::parse_event_t::object_start) seen.emplace_back();
      if (event == json::parse_event_t::object_end) seen.pop_back();
      if (event == json::parse_event_t::key && !seen.back().insert(value.get<std::string>()).second) {
        fail("the key {} appears twice", value.dump());
      }
      return true;
    };
    try {
      return json::parse(text.begin(), text.end(), event);
    } catch (const json::parse_error& error) {
      fail("the header is not valid JSON (at its byte {})", error.byte);
    } catch (const json::exception&) {
      fail("the header is not valid JSON (a number out of range)");
    }
  }

  std::map<std::string, std::string> metadata(const json& value) const {
    if (!value.is_object()) fail("__metadata__ must be an object of strings, got {}", value.type_name());
    std::map<std::string, std::string> result;
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) fail("__metadata__ must hold strings, got {} for {}", text.type_name(), json(key).dump());
      result[key] = text.get<std::string>();
    }
    return result;
  }

  Entry entry(const std::string& name, const json& value) const {
    const std::string quoted = json(name).dump();
    if (!value.is_object()) fail("tensor {} must be an object, got {}", quoted, value.type_name());
    for (const auto& [key, unused] : value.items()) {
      if (key != "dtype" && key != "shape" && key != "data_offsets")
        fail("tensor {} has an unknown field {}", quoted, json(key).dump());
    }
    for (const char* key : {"dtype", "shape", "data_offsets"}) {
      if (!value.contains(key)) fail("tensor {} has no {}", quoted, key);
    }
    Entry e;
    e.name = name;
    e.dtype = dtype(quoted, value["dtype"]);
    const std::vector<uint64_t> dims = integers(quoted, "shape", value["shape"]);
    const uint64_t size = byte_size(quoted, dims, e.dtype);
    e.shape = Shape(std::span(reinterpret_cast<const int64_t*>(dims.data()), dims.size()));
    const std::vector<uint64_t> offsets = integers(quoted, "data_offsets", value["data_offsets"]);
    if (offsets.size() != 2) fail("tensor {}: data_offsets must be two numbers, got {}", quoted, offsets.size());
    e.begin = offsets[0];
    e.end = offsets[1];
    if (e.begin > e.end) fail("tensor {}: data_offsets [{}, {}] run backwards", quoted, e.begin, e.end);
    const uint64_t available = file_.size() - data_begin_;
    if (e.end > available) {
      fail("tensor {}: data_offsets [{}, {}] reach past the {} bytes of data; the file is cut short", quoted, e.begin,
           e.end, available);
    }
    if (e.end - e.begin != size) {
      fail("tensor {}: {} of {} takes {} bytes, data_offsets [{}, {}] hold {}", quoted, to_string(e.shape),
           name_of(e.dtype), size, e.begin, e.end, e.end - e.begin);
    }
    return e;
  }

  Dtype dtype(const std::string& quoted, const json& value) const {
    if (!value.is_string()) fail("tensor {}: dtype must be a string, got {}", quoted, value.type_name());
    for (const auto& [name, dtype] : kDtypes) {
      if (value == name) return dtype;
    }
    fail("tensor {}: dtype {} is not one of F32, F64, I32, I64, U8; convert it before", quoted, value.dump());
  }

  std::vector<uint64_t> integers(const std::string& quoted, const char* key, const json& value) const {
    if (!value.is_array()) fail("tensor {}: {} must be an array, got {}", quoted, key, value.type_name());
    std::vector<uint64_t> numbers;
    for (const json& number : value) {
      if (!number.is_number_unsigned())
        fail("tensor {}: {} must hold integers >= 0, got {}", quoted, key, number.dump());
      numbers.push_back(number.get<uint64_t>());
    }
    return numbers;
  }

  // Checked before a Shape is made or anything allocated. An extent of 0 does not excuse the others.
  uint64_t byte_size(const std::string& quoted, const std::vector<uint64_t>& dims, Dtype dtype) const {
    if (dims.size() > kMaxRank)
      fail("tensor {}: at most {} axes can be read, shape has {}", quoted, kMaxRank, dims.size());
    uint64_t extent_product = 1, size = static_cast<uint64_t>(size_of(dtype));
    for (const uint64_t extent : dims) {
      if (__builtin_mul_overflow(extent_product, std::max<uint64_t>(extent, 1), &extent_product) ||
          extent_product > (uint64_t{1} << 56)) {
        fail("tensor {}: the extents of its shape multiply to more than any file holds", quoted);
      }
      size *= extent;
    }
    return size;
  }

  // In order from 0, without holes or overlap, to the end of the file.
  void check_cover(const std::vector<Entry>& entries) const {
    uint64_t at = 0;
    for (const Entry& e : entries) {
      const std::string quoted = json(e.name).dump();
      if (e.begin < at)
        fail("tensor {} begins at byte {} of the data, inside the one before, which ends at {}", quoted, e.begin, at);
      if (e.begin > at) fail("bytes {} to {} of the data, before tensor {}, belong to no tensor", at, e.begin, quoted);
      at = e.end;
    }
    const uint64_t available = file_.size() - data_begin_;
    if (at != available) fail("{} bytes follow the last tensor", available - at);
  }

  Tensor tensor(const Entry& e) const {
    Tensor x = empty(e.shape, {e.dtype, Device::cpu()});
    file_.read(data_begin_ + e.begin, View(x).data, e.end - e.begin);
    return x;
  }

  const std::string& path_;
  const InputFile file_;
  uint64_t data_begin_ = 0;
};

const char* format_name(Dtype dtype) {
  return std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](auto& d) { return d.second == dtype; })->first;
}

size_t byte_size(const Tensor& tensor) { return static_cast<size_t>(tensor.numel() * size_of(tensor.dtype())); }

}  // namespace

SafeTensors read_safetensors(const std::string& path) {
  try {
    return Reader(path).read();
  } catch (const IoError& error) {
    throw ModelFileError(fmt::format("safetensors: {}", error.what()));
  }
}

void write_safetensors(const std::string& path, const SafeTensors& content) {
  // Wide elements first, so that each tensor is aligned in the file: readers map it without copying.
  std::vector<const std::pair<std::string, Tensor>*> order;
  for (const auto& item : content.tensors) order.push_back(&item);
  std::stable_sort(order.begin(), order.end(),
                   [](auto* a, auto* b) { return size_of(a->second.dtype()) > size_of(b->second.dtype()); });

  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!content.metadata.empty()) header[kMetadata] = content.metadata;
  std::set<std::string> names{kMetadata};
  size_t end = 0;
  for (const auto* item : order) {
    const auto& [name, tensor] = *item;
    if (!names.insert(name).second) {
      throw ValueError(fmt::format("safetensors: {}: the name \"{}\" is already taken", path, name));
    }
    const size_t begin = end;
    end += byte_size(tensor);
    header[name] = {{"dtype", format_name(tensor.dtype())},
                    {"shape", std::vector<int64_t>(tensor.shape().begin(), tensor.shape().end())},
                    {"data_offsets", {begin, end}}};
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const json::exception&) {
    throw ValueError(fmt::format("safetensors: {}: names and metadata must be UTF-8", path));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  std::string bytes(reinterpret_cast<const char*>(&length), 8);
  bytes.reserve(8 + text.size() + end);
  bytes += text;
  for (const auto* item : order) {
    const Tensor host = item->second.detach().to(Device::cpu());
    if (host.numel() > 0) bytes.append(static_cast<const char*>(View(host).data), byte_size(host));
  }
  write_file(path, bytes);
}

}  // namespace tandem
