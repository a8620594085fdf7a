#include "clock.h"

#include <time.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "tandem/core/text.h"

namespace tandem {

double seconds_since_process_start() {
  std::string stat;
  std::getline(std::ifstream("/proc/self/stat"), stat);
  // Behind the name, which may hold anything, the 20th word is the start in clock ticks since boot.
  std::istringstream words(stat.substr(stat.rfind(')') + 1));
  std::string word;
  for (int i = 0; i < 20; ++i) words >> word;
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return double(now.tv_sec) + 1e-9 * double(now.tv_nsec) - std::stod(word) / double(sysconf(_SC_CLK_TCK));
}

}  // namespace tandem
