// What a program can ask and set: cores, the instruction set, BLAS. The pool itself: kernels_test.cpp.
#include "tandem/core/threads.h"

#include <climits>
#include <cstdlib>
#include <string>
#include <thread>

#include "catch.hpp"
#include "helpers.h"
#include "tandem/core/error.h"
#include "tandem/core/ops.h"
#include "tandem/core/parallel.h"

using namespace tandem;
using namespace tandem::test;

// Part of [ops], so that the runs of the op tests on other kernels prove which kernels they ran.
TEST_CASE("TANDEM_CPU_PATH chooses the kernels", "[threads][ops]") {
  const std::string path = cpu_path();
  CHECK((path == "x86-64" || path == "avx2" || path == "avx512"));
  const char* wanted = std::getenv("TANDEM_CPU_PATH");
  if (wanted && (std::string(wanted) == "x86-64" || (std::string(wanted) == "avx2" && __builtin_cpu_supports("avx2"))))
    CHECK(path == wanted);
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  else
    CHECK(path != "x86-64");  // that copy is built without sanitizers (cmake/TandemCompile.cmake)
#endif
}

TEST_CASE("The machine is described", "[threads]") {
  CHECK(available_cores() >= 1);
  CHECK(threads() >= 1);
  CHECK(blas_description().rfind("OpenBLAS 0.", 0) == 0);
}

TEST_CASE("A quota of CPU time bounds the cores, rounded up", "[threads]") {
  CHECK(cores_of_quota("200000 100000\n") == 2);
  CHECK(cores_of_quota("150000 100000") == 2);
  CHECK(cores_of_quota("1000 100000") == 1);
  for (const char* none : {"max 100000\n", "", "x", "100000", "-1 100000", "0 0"})
    CHECK(cores_of_quota(none) == INT_MAX);
}

TEST_CASE("Errors of kernels' callers do not leave the pool busy", "[threads]") {
  for (int i = 0; i < 3; ++i) {
    CHECK_THROWS_AS(matmul(zeros({200, 100}), zeros({99, 200})), ShapeError);
    CHECK(matmul(ones({200, 100}), ones({100, 200})).to_vector<float>()[39999] == 100);
  }
}

TEST_CASE("The warning handler sees each warning and is silent by default", "[threads]") {
  std::vector<std::string> seen;
  const WarningHandler before = set_warning_handler([&](const std::string& text) { seen.push_back(text); });
  std::thread([] { warn("from another thread"); }).join();
  warn("from here");
  set_warning_handler(before);
  warn("to nobody");
  CHECK(seen == std::vector<std::string>{"from another thread", "from here"});
}

TEST_CASE("A warning handler may warn and may set another", "[threads]") {
  std::vector<std::string> seen;
  set_warning_handler([&](const std::string& text) {
    set_warning_handler([&](const std::string& inner) { seen.push_back(inner); });
    warn("within " + text);
  });
  warn("a warning");
  set_warning_handler({});
  CHECK(seen == std::vector<std::string>{"within a warning"});
}
