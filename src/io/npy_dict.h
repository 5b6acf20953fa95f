// The dict literal of an npy header, read by a parser of just that: no Python is evaluated.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "io/byte_source.h"

namespace polyhead {

struct NpyDict {
  std::string descr;
  bool fortran_order = false;
  std::vector<int64_t> shape;
};

// Throws IoError, naming the field and the byte; Unsupported for a structured dtype.
NpyDict parse_npy_dict(const ByteSource& source, std::string_view text);

}  // namespace polyhead
