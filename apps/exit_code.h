// The program's exit codes, and which exception leads to which: decided here and nowhere else.
#pragma once

#include <exception>

#include "tandem/core/error.h"

namespace tandem {

enum ExitCode : int {
  kOk = 0,
  kFailure = 1,   // anything not named below: a full disk, a folder that cannot be written
  kUsage = 2,     // an unknown flag, a value out of range, layers that do not fit together
  kData = 3,      // a data set or image that is missing, corrupt or not what it claims to be
  kModel = 4,     // the same of a model file
  kDiverged = 5,  // the loss became infinite or not a number
  kMemory = 6,    // out of memory
  kDevice = 7,    // a device that this build or machine does not have, or that was lost
};                // 128 + signal (130, 143): stopped by SIGINT, SIGTERM; 75 is reserved

// A wrong command line.
struct UsageError : Error {
  using Error::Error;
};
// Training diverged.
struct DivergedError : Error {
  using Error::Error;
};

// The code for what was thrown.
int exit_code(const std::exception& error);

// The table of codes for --help.
extern const char* const kExitCodes;

}  // namespace tandem
