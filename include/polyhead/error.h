// The exceptions this library throws. Each message reads `function: argument: what we got; what we
// need`. A call that throws has not touched its outputs. std::bad_alloc passes through as it is.
#pragma once

#include <stdexcept>

#pragma GCC visibility push(default)
namespace polyhead {

// The caller's mistake: a wrong shape, dtype, option or name.
class InvalidArgument : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// Valid, but not implemented here.
class Unsupported : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A file that cannot be read, is damaged, or cannot be written. Names the file.
class IoError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace polyhead
#pragma GCC visibility pop
