// Every exception the library throws, and the one door for warnings.
// The library never prints, exits or aborts: it throws one of these, always with a full sentence:
//   <op>: expected <what>, got <what> (<the number that differs>); <the way out, if there is one>
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

namespace tandem {

// Base of all of them.
struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};
// Shapes, ranks or axes that do not fit together.
struct ShapeError : Error {
  using Error::Error;
};
// An argument outside its range, a wrong dtype, a call at the wrong time.
struct ValueError : Error {
  using Error::Error;
};
// A data set that is missing, corrupt or not what it claims to be.
struct DataError : Error {
  using Error::Error;
};
// A model file that is missing, corrupt or does not fit the model.
struct ModelFileError : Error {
  using Error::Error;
};
// A file or folder that could not be read or written (full disk, no permission).
struct IoError : Error {
  using Error::Error;
};
// A device that this build or machine does not have, or that was lost.
struct DeviceError : Error {
  using Error::Error;
};
// Memory for a tensor could not be had.
struct OutOfMemory : Error {
  using Error::Error;
};

// Receives every warning as one sentence. Silent (null) by default; the program prints them.
// Runs in the thread that warns, perhaps in several at once; may itself warn. set_ returns the handler before.
using WarningHandler = std::function<void(const std::string&)>;
WarningHandler set_warning_handler(WarningHandler handler);
void warn(const std::string& sentence);

}  // namespace tandem
