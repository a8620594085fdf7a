#include "progress.h"

#include <fmt/format.h>

#include <algorithm>

#include "terminal.h"

namespace tandem {

namespace {
constexpr auto kRedraw = std::chrono::milliseconds(100), kLine = std::chrono::milliseconds(5000);

// "0:07", "12:34", "1:02:03".
std::string clock_text(double seconds) {
  const auto s = static_cast<int64_t>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}
}  // namespace

Progress::Progress(int64_t total)
    : total_(std::max<int64_t>(total, 1)),
      terminal_(is_terminal(stderr)),
      start_(Clock::now()),
      shown_(terminal_ ? start_ - kRedraw : start_) {}  // a bar at once, a line only if it takes long

Progress::~Progress() {
  if (terminal_) show_status("");
}

void Progress::update(int64_t done, const std::string& text) {
  const std::lock_guard lock(mutex_);
  const auto now = Clock::now();
  if (is_quiet() || now - shown_ < (terminal_ ? kRedraw : kLine)) return;
  shown_ = now;
  const double elapsed = std::chrono::duration<double>(now - start_).count();
  const double left =
      elapsed * static_cast<double>(total_ - std::min(done, total_)) / static_cast<double>(std::max<int64_t>(done, 1));
  if (terminal_) {
    show_status(bar(done, left, text));
  } else {
    notice(fmt::format("{:3} %  {}/{}  {}  {} left", 100 * done / total_, done, total_, text, clock_text(left)));
  }
}

// " 42 % [========>           ] 540/1287  loss 0.0712  0:03 left", within the terminal's width.
std::string Progress::bar(int64_t done, double left, const std::string& text) const {
  const std::string head = fmt::format("{:3} % ", 100 * done / total_);
  const std::string tail = fmt::format(" {}/{}  {}  {} left", done, total_, text, clock_text(left));
  const int room = terminal_width(stderr) - 1 - static_cast<int>(head.size() + tail.size()) - 2;
  if (room < 4) return (head + tail).substr(0, terminal_width(stderr) - 1);
  const int cells = std::min(room, 30), full = static_cast<int>(cells * std::min(done, total_) / total_);
  const std::string fill = std::string(full, '=') + (full < cells ? ">" : "");
  return fmt::format("{}[{:<{}}]{}", head, fill, cells, tail);
}

}  // namespace tandem
