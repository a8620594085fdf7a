#include "fetch.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>

#include "clock.h"
#include "tandem/core/error.h"
#include "tandem/core/file.h"
#include "tandem/data/mnist.h"
#include "terminal.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;
using Bytes = std::vector<uint8_t>;

constexpr size_t kMostBytes = 64 << 20;  // no file of either data set has half of it
constexpr long kFileSeconds = 300, kStallSeconds = 10;
constexpr std::time_t kLately = 24 * 60 * 60;

std::vector<std::string> public_mirrors(const std::string& name) {
  if (name == "mnist") {
    return {"https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/",
            "https://raw.githubusercontent.com/fgnt/mnist/master/"};
  }
  return {"https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
          "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"};
}

// ---- one file from one mirror --------------------------------------------------------------------------

struct Transfer {
  std::string file;
  Bytes body;
  Clock::time_point shown = Clock::now();
};

size_t receive(char* data, size_t, size_t size, void* user) {
  Bytes& body = static_cast<Transfer*>(user)->body;
  if (body.size() + size > kMostBytes) return CURL_WRITEFUNC_ERROR;
  body.insert(body.end(), data, data + size);
  return size;
}

// On a terminal one line that changes, elsewhere a line now and then.
int show_progress(void* user, curl_off_t total, curl_off_t now, curl_off_t, curl_off_t) {
  Transfer& transfer = *static_cast<Transfer*>(user);
  const bool terminal = is_terminal(stderr);
  if (total <= 0 || now <= 0 || seconds_since(transfer.shown) < (terminal ? 0.1 : 5)) return 0;
  transfer.shown = Clock::now();
  const std::string text = fmt::format("{}: {:.1f} of {:.1f} MB", transfer.file, static_cast<double>(now) / 1e6,
                                       static_cast<double>(total) / 1e6);
  terminal ? show_status(text) : notice(text);
  return 0;
}

// The body behind `url`, or in `fault` why there is none.
std::optional<Bytes> download(const std::string& url, const std::string& file, double connect_seconds,
                              std::string& fault) {
  static const CURLcode ready = curl_global_init(CURL_GLOBAL_DEFAULT);
  const std::unique_ptr<CURL, decltype(&curl_easy_cleanup)> curl(curl_easy_init(), curl_easy_cleanup);
  if (ready != CURLE_OK || !curl) throw Error("fetch: libcurl cannot be started");
  Transfer transfer{file, {}};
  char reason[CURL_ERROR_SIZE] = "";
  const auto set = [&](CURLoption option, auto value) { curl_easy_setopt(curl.get(), option, value); };
  set(CURLOPT_URL, url.c_str());
  set(CURLOPT_USERAGENT, "tandem");
  set(CURLOPT_FOLLOWLOCATION, 1L);
  set(CURLOPT_MAXREDIRS, 5L);
  set(CURLOPT_FAILONERROR, 1L);
  set(CURLOPT_NOSIGNAL, 1L);
  set(CURLOPT_CONNECTTIMEOUT_MS, std::max(1L, static_cast<long>(connect_seconds * 1000)));
  set(CURLOPT_TIMEOUT, kFileSeconds);
  set(CURLOPT_LOW_SPEED_LIMIT, 1000L);
  set(CURLOPT_LOW_SPEED_TIME, kStallSeconds);
#if LIBCURL_VERSION_NUM >= 0x075700
  set(CURLOPT_QUICK_EXIT, 1L);  // do not wait for a name server past the time-out
#endif
  set(CURLOPT_ERRORBUFFER, reason);
  set(CURLOPT_WRITEFUNCTION, receive);
  set(CURLOPT_WRITEDATA, &transfer);
  set(CURLOPT_NOPROGRESS, 0L);
  set(CURLOPT_XFERINFOFUNCTION, show_progress);
  set(CURLOPT_XFERINFODATA, &transfer);
  const CURLcode code = curl_easy_perform(curl.get());
  show_status("");
  if (code == CURLE_OK) return std::move(transfer.body);
  fault = transfer.body.size() + CURL_MAX_WRITE_SIZE > kMostBytes ? "sends more than 64 MiB"
          : *reason                                               ? reason
                                                                  : curl_easy_strerror(code);
  return {};
}

// ---- all mirrors -----------------------------------------------------------------------------------------

// A mirror that failed once is left out from then on: what it failed for would fail again.
class Mirrors {
 public:
  Mirrors(std::string name, const FetchOptions& options)
      : name_(std::move(name)),
        left_(options.connect_seconds),
        urls_(options.mirrors.empty() ? public_mirrors(name_) : options.mirrors) {
    for (std::string& url : urls_) {
      if (url.rfind("http://", 0) != 0 && url.rfind("https://", 0) != 0) {
        throw ValueError(fmt::format("fetch: expected a mirror that starts with http:// or https://, got '{}'", url));
      }
      if (url.back() != '/') url += '/';
    }
  }

  // The bytes of a file, with the right checksum. Throws DataError with every mirror's fault.
  Bytes get(int file) {
    const std::string gz = std::string(kMnistFiles[file]) + ".gz";
    while (!urls_.empty()) {
      const std::string url = urls_.front() + gz;
      notice("fetching " + url);
      const Clock::time_point start = Clock::now();
      const double share = left_ / static_cast<double>(urls_.size());
      std::string fault;
      if (auto body = download(url, gz, share, fault)) {
        try {
          verify_mnist_file(name_, file, *body, gz);
          return std::move(*body);
        } catch (const DataError& error) {
          fault = error.what();
        }
      } else {
        left_ -= std::min(share, seconds_since(start));
      }
      notice(fmt::format("{}: {}", urls_.front(), fault));
      faults_.push_back(fmt::format("{}: {}", urls_.front(), fault));
      urls_.erase(urls_.begin());
    }
    throw DataError(fmt::format("fetch: no mirror delivered {} ({})", gz, fmt::join(faults_, "; ")));
  }

 private:
  std::string name_;
  double left_;  // seconds of connecting
  std::vector<std::string> urls_, faults_;
};

// ---- the memory of failures --------------------------------------------------------------------------------

std::string stamp_path(const std::string& name) {
  const std::string cache = mnist_cache_dir(name);
  return cache.empty() ? "" : cache + "/fetch-failed";
}

bool failed_lately(const std::string& stamp) {
  struct stat info;
  if (stamp.empty() || ::stat(stamp.c_str(), &info) != 0) return false;
  const std::time_t age = std::time(nullptr) - info.st_mtime;
  return age >= 0 && age < kLately;
}

// Best effort: without the stamp, the next call merely tries again.
void remember_failure(const std::string& stamp) try {
  if (stamp.empty()) return;
  fs::create_directories(fs::path(stamp).parent_path());
  write_file(stamp, "The last download failed; `tandem data fetch` tries again.\n");
} catch (const std::exception&) {
}

// ---- the folder ----------------------------------------------------------------------------------------------

// Is file 0..3 there and right? Throws DataError if it is the other data set's.
bool have(const std::string& name, const std::string& dir, int file) {
  const auto path = find_mnist_file(dir, file);
  if (!path) return false;
  const Bytes bytes = read_file(*path);
  try {
    verify_mnist_file(name, file, bytes, *path);
    return true;
  } catch (const DataError&) {
  }
  const std::string other = name == "mnist" ? "fashion-mnist" : "mnist";
  try {
    verify_mnist_file(other, file, bytes, *path);
  } catch (const DataError&) {
    return false;  // damaged, or nobody's
  }
  throw DataError(fmt::format("fetch: {} is {}'s, expected {}'s or nothing; choose another folder with --data", *path,
                              other, name));
}

void put(const std::string& dir, int file, const Bytes& bytes) {
  const std::string path = fmt::format("{}/{}.gz", dir, kMnistFiles[file]);
  while (const auto wrong = find_mnist_file(dir, file)) {
    notice(fmt::format("{} has a wrong checksum: kept as {}.replaced", *wrong, *wrong));
    std::error_code error;
    fs::rename(*wrong, *wrong + ".replaced", error);
    if (error) throw IoError(fmt::format("fetch: cannot rename {}: {}", *wrong, error.message()));
  }
  write_file(path, {reinterpret_cast<const char*>(bytes.data()), bytes.size()});
}

void make_writable(const std::string& dir) {
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) throw IoError(fmt::format("fetch: cannot create {}: {}", dir, error.message()));
  if (::access(dir.c_str(), W_OK | X_OK) != 0) {
    throw IoError(fmt::format("fetch: cannot write to {}: {}", dir, std::strerror(errno)));
  }
}

std::string by_hand(const std::string& dir) {
  return fmt::format(", or put {} (raw or .gz) into {} yourself", fmt::join(kMnistFiles, ", "), dir);
}

}  // namespace

std::string fetch_mnist(const std::string& name, const FetchOptions& options) {
  const std::string cache = mnist_cache_dir(name);
  const std::string dir = options.dir.empty() ? cache : options.dir;
  if (dir.empty()) throw ValueError("fetch: neither XDG_CACHE_HOME nor HOME is set; name a folder with --data");
  Mirrors mirrors(name, options);
  std::vector<int> wanted;
  for (int file = 0; file < 4; ++file) {
    if (!have(name, dir, file)) wanted.push_back(file);
  }
  if (wanted.empty()) return dir;

  const char* offline = std::getenv("TANDEM_OFFLINE");
  if (offline && *offline && std::strcmp(offline, "0") != 0) {
    throw DataError("fetch: TANDEM_OFFLINE is set: unset it to download" + by_hand(dir));
  }
  const std::string stamp = stamp_path(name);
  if (options.unless_failed_lately && failed_lately(stamp)) {
    throw DataError(fmt::format("fetch: the last try failed within a day: `tandem data fetch {}` tries again{}", name,
                                by_hand(dir)));
  }
  make_writable(dir);
  try {
    for (int file : wanted) put(dir, file, mirrors.get(file));
  } catch (const DataError& error) {
    remember_failure(stamp);
    throw DataError(error.what() + ("; try again later" + by_hand(dir)));
  }
  std::error_code ignored;  // there may be none
  fs::remove(stamp, ignored);
  return dir;
}

}  // namespace tandem
