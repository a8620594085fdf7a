// `tandem data fetch` as a user runs it, against a small web server of this test's own on the loopback address.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "../catch.hpp"
#include "program.h"
#include "tandem/core/file.h"
#include "tandem/data/mnist.h"

namespace tandem::test {
namespace {

namespace fs = std::filesystem;

sockaddr_in loopback(uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  address.sin_port = htons(port);
  return address;
}

// A listening socket and its port.
struct Listener {
  explicit Listener(int backlog) : fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address = loopback(0);
    socklen_t size = sizeof address;
    REQUIRE(bind(fd, reinterpret_cast<sockaddr*>(&address), size) == 0);
    REQUIRE(listen(fd, backlog) == 0);
    REQUIRE(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) == 0);
    port = ntohs(address.sin_port);
  }
  ~Listener() { close(fd); }
  std::string url() const { return "http://127.0.0.1:" + std::to_string(port) + "/"; }
  int fd;
  uint16_t port = 0;
};

std::string ok(const std::string& body) {
  return "HTTP/1.1 200 OK\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}
const std::string kNotFound = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

// Answers every GET with what `answer` says for its path, then closes the connection.
class Server {
 public:
  explicit Server(std::function<std::string(const std::string& path)> answer)
      : answer_(std::move(answer)), listener_(16), thread_([this] { run(); }) {}
  ~Server() {
    stop_ = true;
    thread_.join();
  }
  std::string url() const { return listener_.url(); }
  int requests() const { return requests_; }

 private:
  void run() {
    pollfd wait = {listener_.fd, POLLIN, 0};
    while (!stop_) {
      if (poll(&wait, 1, 20) <= 0) continue;
      const int client = accept4(listener_.fd, nullptr, nullptr, SOCK_CLOEXEC);
      std::string request(4096, '\0');
      const ssize_t got = recv(client, request.data(), request.size(), 0);
      request.resize(got > 0 ? got : 0);
      std::istringstream words(request);
      std::string method, path;
      words >> method >> path;
      ++requests_;
      const std::string reply = answer_(path);
      for (size_t sent = 0; sent < reply.size();) {
        const ssize_t n = send(client, reply.data() + sent, reply.size() - sent, MSG_NOSIGNAL);
        if (n <= 0) break;
        sent += n;
      }
      shutdown(client, SHUT_WR);
      close(client);
    }
  }

  std::function<std::string(const std::string&)> answer_;
  Listener listener_;
  std::atomic<bool> stop_ = false;
  std::atomic<int> requests_ = 0;
  std::thread thread_;
};

struct Result : Outcome {
  double seconds;
};

// Runs `tandem data WORDS` with its cache in `dir`/cache. No proxy comes between it and the loopback.
Result data_command(const TempDir& dir, const std::string& words, std::map<std::string, std::string> environment = {}) {
  std::vector<std::string> arguments = {"data"};
  std::istringstream pieces(words);
  for (std::string word; pieces >> word;) arguments.push_back(word);
  const auto start = std::chrono::steady_clock::now();
  const Outcome outcome = tandem_program(dir, arguments, {.environment = std::move(environment)});
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
  return {outcome, seconds.count()};
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

// The reply of a true mirror of the MNIST in `dir`.
std::string mirror_reply(const std::string& dir, const std::string& path) {
  for (int file = 0; file < 4; ++file) {
    if (path == std::string("/") + kMnistFiles[file] + ".gz") return ok(read_text(*find_mnist_file(dir, file)));
  }
  return kNotFound;
}

}  // namespace

TEST_CASE("data fetch gets the four files from the first mirror that has them, and only once", "[mnist]") {
  const auto mnist = require_mnist();
  if (!mnist) return;
  const TempDir dir;
  Server missing([](const std::string&) { return kNotFound; }), wrong([](const std::string&) { return ok("<html>"); }),
      cut([&](const std::string&path) { return mirror_reply(*mnist, path).substr(0, 3000); }),
      good([&](const std::string&path) { return mirror_reply(*mnist, path); });
  const std::string fetch = "fetch mnist --mirror " + missing.url() + " --mirror " + wrong.url() + " --mirror " +
                            cut.url() + " --mirror " + good.url();
  const Result first = data_command(dir, fetch);
  INFO(first.err);
  CHECK(first.exit_code == 0);
  CHECK(first.out == "mnist: complete and verified in " + dir.file("cache/tandem/mnist") + "\n");
  CHECK(contains(first.err, "error: 404"));
  CHECK(contains(first.err, "expected an IDX file (first bytes 00 00), got 3c 68"));
  CHECK(missing.requests() + wrong.requests() + cut.requests() == 3);  // a mirror that failed is left alone
  CHECK(good.requests() == 4);
  CHECK(files_in(dir.file("cache/tandem/mnist")).size() == 4);
  CHECK(data_command(dir, "verify mnist").exit_code == 0);

  const Result second = data_command(dir, fetch, {{"TANDEM_OFFLINE", "1"}});  // complete: there is nothing to fetch
  CHECK(second.exit_code == 0);
  CHECK(good.requests() == 4);

  const std::string labels = dir.file("cache/tandem/mnist/t10k-labels-idx1-ubyte");
  std::ofstream(labels) << "damaged";  // a raw file goes before a .gz
  fs::remove(labels + ".gz");
  CHECK(data_command(dir, "verify mnist").exit_code == 3);
  CHECK(data_command(dir, fetch + " --json").out ==
        "{\"dataset\":\"mnist\",\"folder\":\"" + dir.file("cache/tandem/mnist") + "\",\"verified\":true}\n");
  CHECK(read_text(labels + ".replaced") == "damaged");
  CHECK(good.requests() == 5);

  const Result other =
      data_command(dir, "fetch fashion-mnist --data " + dir.file("cache/tandem/mnist") + " --mirror " + good.url());
  CHECK(other.exit_code == 3);
  CHECK(contains(other.err, "is mnist's, expected fashion-mnist's or nothing; choose another folder with --data"));
  CHECK(good.requests() == 5);
}

TEST_CASE("data fetch without a network says what to do, leaves nothing and remembers it for a day") {
  const TempDir dir;
  const std::string cache = dir.file("cache/tandem/mnist");
  std::string closed;
  {
    const Listener listener(1);
    closed = listener.url();
  }
  const Result first = data_command(dir, "fetch mnist --mirror " + closed);
  CHECK(first.exit_code == 3);
  CHECK(first.out.empty());
  CHECK(contains(first.err, "fetch: no mirror delivered train-images-idx3-ubyte.gz (" + closed + ": "));
  CHECK(contains(first.err,
                 "; try again later, or put train-images-idx3-ubyte, train-labels-idx1-ubyte, "
                 "t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte (raw or .gz) into " +
                     cache + " yourself"));
  CHECK(files_in(cache).size() == 1);  // the stamp

  Server server([](const std::string&) { return kNotFound; });
  const std::string again = "fetch mnist --mirror " + server.url();
  const Result refused = data_command(dir, again + " --unless-failed-lately");
  CHECK(refused.exit_code == 3);
  CHECK(
      contains(refused.err, "fetch: the last try failed within a day: `tandem data fetch mnist` tries again, or put"));
  CHECK(server.requests() == 0);
  CHECK(data_command(dir, again).exit_code == 3);
  CHECK(server.requests() == 1);
  fs::last_write_time(cache + "/fetch-failed", fs::file_time_type::clock::now() - std::chrono::hours(25));
  CHECK(data_command(dir, again + " --unless-failed-lately").exit_code == 3);
  CHECK(server.requests() == 2);
  const Result offline = data_command(dir, again, {{"TANDEM_OFFLINE", "1"}});
  CHECK(offline.exit_code == 3);
  CHECK(contains(offline.err, "fetch: TANDEM_OFFLINE is set: unset it to download, or put train-images-idx3-ubyte"));
  CHECK(server.requests() == 2);
}

TEST_CASE("data fetch takes no broken, oversized or endless answer") {
  const TempDir dir;
  const std::string data = dir.file("data");
  const std::string whole = ok(std::string(5000, 'x'));
  Server cut([&](const std::string&) { return whole.substr(0, whole.size() - 2000); }),
      large([](const std::string&) { return "HTTP/1.1 200 OK\r\n\r\n" + std::string(65 << 20, 'x'); }),
      loop([](const std::string&path) {
        return "HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + path + "\r\n\r\n";
      });
  const auto fetch = [&](const Server& server) {
    return data_command(dir, "fetch mnist --data " + data + " --mirror " + server.url());
  };
  const Result short_answer = fetch(cut), large_answer = fetch(large), redirected = fetch(loop);
  CHECK(short_answer.exit_code == 3);
  CHECK(contains(short_answer.err, "2000 bytes"));
  CHECK(large_answer.exit_code == 3);
  CHECK(contains(large_answer.err, "sends more than 64 MiB"));
  CHECK(redirected.exit_code == 3);
  CHECK(loop.requests() == 6);
  CHECK(files_in(data).size() == 0);
}

TEST_CASE("data fetch -q shows no progress") {
  if (!have_terminals()) return;
  Server slow([](const std::string&) {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
    return ok(std::string(200'000, 'x'));
  });
  const auto shown = [&](const std::string& flag) {
    const TempDir dir;
    const std::vector<std::string> words = {"data", "fetch", "mnist", "--mirror", slow.url(), flag};
    return tandem_program(dir, words, {.terminal = true}).err;
  };
  CHECK(contains(shown("--unless-failed-lately"), " of 0.2 MB"));
  CHECK(shown("-q").rfind("\x1b[31mtandem: ", 0) == 0);
}

TEST_CASE("data fetch gives up connecting in time when no mirror answers") {
  const TempDir dir;
  const Listener deaf(0);  // accepts nobody; its queue is filled here, so that further connections hang
  int queue[4];
  for (int& fd : queue) {
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const sockaddr_in address = loopback(deaf.port);
    connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  }
  std::string mirrors;
  for (int i = 0; i < 3; ++i) mirrors += " --mirror " + deaf.url();
  const Result result = data_command(dir, "fetch mnist --connect-timeout 1.5" + mirrors);
  for (int fd : queue) close(fd);
  INFO(result.err);
  CHECK(result.exit_code == 3);
  CHECK(result.seconds > 1);
  CHECK(result.seconds < 6);  // 1.5 s, and slack for a busy machine
}

TEST_CASE("data fetch and verify refuse wrong usage and unusable folders") {
  const TempDir dir;
  CHECK(data_command(dir, "fetch mnits").exit_code == 2);
  CHECK(contains(data_command(dir, "fetch mnits").err, "mnist"));
  CHECK(data_command(dir, "fetch").exit_code == 2);
  const Result ftp = data_command(dir, "fetch mnist --mirror ftp://127.0.0.1/");
  CHECK(ftp.exit_code == 2);
  CHECK(contains(ftp.err, "fetch: expected a mirror that starts with http:// or https://, got 'ftp://127.0.0.1/'"));
  std::ofstream(dir.file("file")) << "no folder";
  const Result blocked = data_command(dir, "fetch mnist --mirror http://127.0.0.1:1/ --data " + dir.file("file/mnist"));
  CHECK(blocked.exit_code == 1);
  CHECK(contains(blocked.err, "fetch: cannot create " + dir.file("file/mnist") + ": "));
  const Result missing = data_command(dir, "verify mnist --data " + dir.file("no"));
  CHECK(missing.exit_code == 3);
  CHECK(contains(missing.err, "tandem data fetch mnist"));
}

}  // namespace tandem::test
