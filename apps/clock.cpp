#include "clock.h"

#include <time.h>
#include <unistd.h>

#include <fstream>
#include <optional>
#include <sstream>
#include <string>

#include "tandem/core/text.h"

namespace tandem {

namespace {
const Clock::time_point loaded = Clock::now();
}

double seconds_since_process_start() {
  std::stringstream stat;
  stat << std::ifstream("/proc/self/stat").rdbuf();
  // Behind the name, which may hold anything, the 20th word is the start in clock ticks since boot.
  std::istringstream words(stat.str().substr(stat.str().rfind(')') + 1));
  std::string word;
  for (int i = 0; i < 20; ++i) words >> word;
  const std::optional<double> ticks = parse_double(word);
  if (!ticks) return seconds_since(loaded);
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec) - *ticks / double(sysconf(_SC_CLK_TCK));
}

}  // namespace tandem
