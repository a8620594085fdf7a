#include "tandem/data/idx.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cstring>
#include <functional>
#include <vector>

#include "tandem/core/error.h"

namespace tandem {
namespace {

[[noreturn]] void fail(const std::string& name, const std::string& fault) {
  throw DataError(fmt::format("read_idx: {}: {}", name, fault));
}

// A file or a piece of memory of known size, not yet in memory.
struct Input {
  std::string name;
  uint64_t size;
  std::function<void(uint64_t offset, uint8_t* out, size_t n)> read;  // exactly n bytes within size
};

// The content of an input, in order; a gzip input is inflated on the way.
class Content {
 public:
  explicit Content(const Input& input) : input_(input) {
    uint8_t magic[2] = {};
    input.read(0, magic, std::min<uint64_t>(2, input.size));
    gzip_ = magic[0] == 0x1f && magic[1] == 0x8b;
    if (gzip_ && inflateInit2(&stream_, 15 + 16) != Z_OK) throw OutOfMemory("read_idx: no memory for zlib");
  }
  ~Content() {
    if (gzip_) inflateEnd(&stream_);
  }
  Content(const Content&) = delete;
  Content& operator=(const Content&) = delete;

  // Up to n bytes; fewer only where the content ends.
  size_t read(uint8_t* out, size_t n) {
    if (gzip_) return inflate_some(out, n);
    n = std::min<uint64_t>(n, input_.size - offset_);
    input_.read(offset_, out, n);
    offset_ += n;
    return n;
  }

  // Before anything is allocated: can the content have `promised` bytes? Raw, it must have them; gzip does
  // not tell, but deflate never shrinks further than a copy of 258 bytes in 2 bits.
  void expect_size(uint64_t promised, const Shape& shape) const {
    if (!gzip_) {
      if (input_.size != promised) wrong_size(promised, shape, input_.size);
    } else if (promised / 1032 > input_.size) {
      fail(input_.name, fmt::format("its header {} promises {} bytes, more than {} bytes of gzip can hold",
                                    to_string(shape), promised, input_.size));
    }
  }

  [[noreturn]] void wrong_size(uint64_t promised, const Shape& shape, uint64_t got) const {
    fail(input_.name,
         fmt::format(
             "expected {} bytes, as its header {} promises, got {} ({})", promised, to_string(shape), got,
             got < promised ? fmt::format("{} missing", promised - got) : fmt::format("{} too many", got - promised)));
  }

  // After the last byte that the header promised: nothing may follow, and the gzip checksum must be right.
  void expect_end(uint64_t promised, const Shape& shape) {
    if (!gzip_) return;
    uint8_t extra;
    if (read(&extra, 1) != 0) {
      fail(input_.name, fmt::format("expected {} bytes, as its header {} promises, but its gzip data holds more",
                                    promised, to_string(shape)));
    }
    const uint64_t rest = input_.size - (offset_ - stream_.avail_in);
    if (rest != 0) fail(input_.name, fmt::format("expected its gzip data to end the file, got {} bytes more", rest));
  }

 private:
  size_t inflate_some(uint8_t* out, size_t n) {
    size_t done = 0;
    while (done < n && !ended_) {
      if (stream_.avail_in == 0) {
        const size_t fill = std::min<uint64_t>(sizeof buffer_, input_.size - offset_);
        if (fill == 0) fail(input_.name, "its gzip data is cut short");
        input_.read(offset_, buffer_, fill);
        offset_ += fill;
        stream_.next_in = buffer_;
        stream_.avail_in = static_cast<uInt>(fill);
      }
      const uInt room = static_cast<uInt>(std::min<size_t>(n - done, 1 << 30));
      stream_.next_out = out + done;
      stream_.avail_out = room;
      const int status = inflate(&stream_, Z_NO_FLUSH);
      done += room - stream_.avail_out;
      ended_ = status == Z_STREAM_END;
      if (status != Z_OK && status != Z_STREAM_END && status != Z_BUF_ERROR) {
        fail(input_.name, fmt::format("its gzip data is damaged ({})", stream_.msg ? stream_.msg : "zlib error"));
      }
    }
    return done;
  }

  const Input& input_;
  bool gzip_ = false, ended_ = false;
  uint64_t offset_ = 0;  // bytes of the input used
  z_stream stream_ = {};
  uint8_t buffer_[1 << 16];
};

constexpr int64_t kMostElements = int64_t{1} << 56;  // of any Shape

// Magic 00 00 08 <rank>, then each extent as a big-endian uint32.
Shape parse_header(const std::string& name, const uint8_t* header, size_t got, int rank) {
  const size_t size = 4 + 4 * rank;
  if (got == 0) fail(name, "expected an IDX file, got an empty one");
  if (got >= 4 && (header[0] != 0 || header[1] != 0)) {
    fail(name, fmt::format("expected an IDX file (first bytes 00 00), got {:02x} {:02x}", header[0], header[1]));
  }
  if (got >= 4 && header[2] != 0x08) {
    fail(name, fmt::format("expected elements of type 08 (uint8), got type {:02x}", header[2]));
  }
  if (got >= 4 && header[3] != rank) fail(name, fmt::format("expected {} axes, got {}", rank, header[3]));
  if (got < size) fail(name, fmt::format("expected a header of {} bytes, got {}", size, got));
  std::vector<int64_t> extents(rank);
  int64_t elements = 1;
  bool overflow = false;
  for (int i = 0; i < rank; ++i) {
    const uint8_t* p = header + 4 + 4 * i;
    extents[i] = int64_t{p[0]} << 24 | int64_t{p[1]} << 16 | int64_t{p[2]} << 8 | int64_t{p[3]};
    overflow |= __builtin_mul_overflow(elements, extents[i], &elements) || elements > kMostElements;
  }
  const bool empty = std::find(extents.begin(), extents.end(), 0) != extents.end();
  if (empty || overflow) {
    fail(name, fmt::format("expected extents {}, got [{}]", empty ? "above 0" : "with a product of at most 2^56",
                           fmt::join(extents, ", ")));
  }
  return Shape(std::span<const int64_t>(extents));
}

Tensor parse(const Input& input, int rank) {
  if (rank < 1 || rank > kMaxRank) {
    throw ValueError(fmt::format("read_idx: expected a rank of 1 to {}, got {}", kMaxRank, rank));
  }
  Content content(input);
  uint8_t header[4 + 4 * kMaxRank];
  const uint64_t header_size = 4 + 4 * rank;
  const Shape shape = parse_header(input.name, header, content.read(header, header_size), rank);
  const uint64_t promised = header_size + shape.numel();
  content.expect_size(promised, shape);
  Tensor x = empty(shape, {.dtype = Dtype::uint8});
  const uint64_t got = content.read(x.mutable_data<uint8_t>(), shape.numel());
  if (header_size + got != promised) content.wrong_size(promised, shape, header_size + got);
  content.expect_end(promised, shape);
  return x;
}

// An open file descriptor, closed at the end of its scope.
struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) close(fd);
  }
};

}  // namespace

Tensor read_idx(const std::string& path, int rank) {
  const Descriptor file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};  // a pipe must not make us wait
  struct stat info;
  if (file.fd < 0 || fstat(file.fd, &info) != 0) fail(path, fmt::format("cannot be opened ({})", strerror(errno)));
  if (!S_ISREG(info.st_mode)) fail(path, "expected a regular file");
  const auto read = [&](uint64_t offset, uint8_t* out, size_t n) {
    while (n > 0) {
      const ssize_t got = pread(file.fd, out, n, static_cast<off_t>(offset));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) fail(path, fmt::format("cannot be read ({})", strerror(errno)));
      if (got == 0) fail(path, fmt::format("ended at byte {} while it was read", offset));
      out += got, offset += got, n -= got;
    }
  };
  return parse({path, static_cast<uint64_t>(info.st_size), read}, rank);
}

Tensor parse_idx(const uint8_t* bytes, size_t size, const std::string& name, int rank) {
  const auto read = [&](uint64_t offset, uint8_t* out, size_t n) {
    if (n > 0) std::memcpy(out, bytes + offset, n);
  };
  return parse({name, size, read}, rank);
}

}  // namespace tandem
