#include "terminal.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>

#include "tandem/core/error.h"

namespace tandem {

namespace {
Color color = Color::automatic;
bool quiet = false;
std::mutex stderr_mutex;
std::string status;

bool shows_color(std::FILE* stream) {
  if (color != Color::automatic) return color == Color::always;
  const char* no_color = std::getenv("NO_COLOR");
  return is_terminal(stream) && (no_color == nullptr || *no_color == '\0');
}

void line(const std::string& text) {
  const std::lock_guard lock(stderr_mutex);
  const char* const clear = status.empty() ? "" : "\r\x1b[K";
  std::fputs((clear + text + "\n" + status).c_str(), stderr);
}
}  // namespace

void set_color(Color value) { color = value; }
void set_quiet(bool value) { quiet = value; }
bool is_quiet() { return quiet; }

bool is_terminal(std::FILE* stream) {
  const char* term = std::getenv("TERM");
  return isatty(fileno(stream)) == 1 && term != nullptr && std::strcmp(term, "dumb") != 0;
}

int terminal_width(std::FILE* stream) {
  winsize size{};
  return ioctl(fileno(stream), TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
}

std::string styled(std::FILE* stream, Style style, const std::string& text) {
  if (!shows_color(stream)) return text;
  static constexpr const char* codes[] = {"1", "31", "33"};
  return fmt::format("\x1b[{}m{}\x1b[0m", codes[static_cast<int>(style)], text);
}

void show_status(const std::string& text) {
  if (quiet) return;
  const std::lock_guard lock(stderr_mutex);
  if (!status.empty() || !text.empty()) std::fputs(("\r\x1b[K" + text).c_str(), stderr);
  status = text;
}

void notice(const std::string& text) {
  if (!quiet) line(text);
}

void warning(const std::string& sentence) {
  static std::set<std::string> shown;
  {
    const std::lock_guard lock(stderr_mutex);
    if (!shown.insert(sentence).second) return;
  }
  line(styled(stderr, Style::yellow, "warning: ") + sentence);
}

void error(const std::string& sentence) { line(styled(stderr, Style::red, "tandem: ") + sentence); }

void print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    throw IoError(fmt::format("standard output: {}", std::strerror(errno)));
  }
}

static std::string text_of(const nlohmann::ordered_json& value, int indent) {
  return value.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}
void print_json(const nlohmann::ordered_json& value) { print(text_of(value, -1)); }
std::string indented(const nlohmann::ordered_json& value) { return text_of(value, 2); }

}  // namespace tandem
