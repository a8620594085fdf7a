// That the kernels' results are not luck: no order of threads and blocks changes them, and each barrier is there for a
// reason.
#include <sys/wait.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>

#include "../catch.hpp"
#include "../helpers.h"
#include "cases.h"
#include "tandem/core/threads.h"

using namespace tandem;
using namespace tandem::test;

namespace {

enum class Outcome { same, different, crashed, hung };

// In a process of its own, which a kernel gone wrong may take down.
Outcome outcome_of(const DeviceCase& call, const Bytes& right) {
  std::cout << std::flush;
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    for (int caught : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE}) std::signal(caught, SIG_DFL);
    if (!std::freopen("/dev/null", "w", stderr)) _exit(2);
    alarm(60);
    int code = 1;
    try {
      code = call.run() == right ? 0 : 1;
    } catch (...) {  // also a result
    }
    _exit(code);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  if (WIFEXITED(status)) return WEXITSTATUS(status) == 0 ? Outcome::same : Outcome::different;
  return WTERMSIG(status) == SIGALRM ? Outcome::hung : Outcome::crashed;
}

int barriers_in_sources() {
  int found = 0;
  for (const auto& file : std::filesystem::directory_iterator(TANDEM_TEST_DIR "/../cuda")) {
    if (!file.is_regular_file()) continue;
    std::ifstream source(file.path());
    for (std::string line; std::getline(source, line);) found += line.find("  block.sync();") != std::string::npos;
  }
  return found;
}

}  // namespace

TEST_CASE("Every barrier of the kernels is needed", "[emulator]") {
  const SingleThreaded alone;  // a fork has no other threads
  const Seed seed(1);
  std::vector<DeviceCase> cases = device_cases(Dtype::float32);
  std::vector<Bytes> right;
  std::vector<size_t> first_to_meet;  // of each barrier
  for (const DeviceCase& call : cases) {
    right.push_back(call.run());
    first_to_meet.resize(static_cast<size_t>(emulator::barriers_met()), right.size() - 1);
  }
  CHECK(emulator::barriers_met() == barriers_in_sources());
  CHECK(outcome_of(cases[0], right[0]) == Outcome::same);
  for (int barrier = 0; barrier < emulator::barriers_met(); ++barrier) {
    const SkippedBarrier skipped(barrier);
    INFO("without the barrier of " << emulator::barrier_name(barrier));
    const size_t first = first_to_meet[static_cast<size_t>(barrier)];
    Outcome outcome = outcome_of(cases[first], right[first]);
    for (size_t i = first + 1; i < cases.size() && outcome == Outcome::same; ++i)
      outcome = outcome_of(cases[i], right[i]);
    CHECK((outcome == Outcome::different || outcome == Outcome::crashed));
  }
}

TEST_CASE("Results are the same bytes in whatever order threads and blocks run", "[emulator]") {
  for (const Dtype dtype : {Dtype::float32, Dtype::float64}) {
    std::vector<Bytes> right;
    const std::vector<DeviceCase> cases = device_cases(dtype);
    for (const DeviceCase& call : cases) right.push_back(call.run());
    for (unsigned order : dtype == Dtype::float32 ? std::vector<unsigned>{1, 2, 3} : std::vector<unsigned>{1}) {
      const Seed seed(order);
      for (size_t i = 0; i < cases.size(); ++i) {
        INFO(cases[i].name << " " << name_of(dtype) << ", order " << order);
        CHECK((cases[i].run() == right[i]));
      }
    }
  }
}

TEST_CASE("Rows that a part of a warp, a warp or a block shares give the CPU's loss and gradient", "[emulator]") {
  for (const int64_t width : {7, 32, 33, 512, 513, 1500}) {
    INFO("rows of " << width);
    const Bytes here = wide_rows(width, Dtype::float64, Device::cuda());
    const Bytes there = wide_rows(width, Dtype::float64, Device::cpu());
    for (size_t i = 0; i < here.size(); ++i) {
      std::vector<double> got(here[i].size() / sizeof(double)), want(got.size());
      std::memcpy(got.data(), here[i].data(), here[i].size());
      std::memcpy(want.data(), there[i].data(), there[i].size());
      bool near = true;
      for (size_t k = 0; k < got.size(); ++k) near = near && std::fabs(got[k] - want[k]) < 1e-14;
      CHECK(near);
    }
  }
}
