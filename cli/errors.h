// What the command returns, and the exceptions that carry it. The library's own exceptions mean
// kBadFile: by the time the library is called, the flags are known to be good.
#pragma once

#include <stdexcept>

namespace polyhead::cli {

enum ExitCode {
  kOk = 0,
  kBeyondBudget = 1,  // `verify` only
  kBadUsage = 2,
  kBadFile = 3,    // or files that do not fit together
  kNoResource = 4  // memory, disk or interruption
};

class UsageError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class FileError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

class ResourceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace polyhead::cli
