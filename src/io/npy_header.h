// The header of an npy file: "\x93NUMPY", two bytes of version, a length (2 bytes in version 1, 4
// in 2 and 3), then a Python dict literal of that length that ends in a newline:
//   {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <polyhead/tensor_view.h>
#include "io/byte_source.h"

namespace polyhead {

struct NpyHeader {
  DType dtype = DType::kFloat32;
  bool big_endian = false;
  bool fortran_order = false;
  std::vector<int64_t> shape;
  int64_t data_start = 0;  // bytes from the start of the file
};

// Throws IoError for a damaged file, Unsupported for a dtype or rank that we do not hold. The
// data's size has been compared with the file's. `path` is only for the advice about other files.
NpyHeader parse_npy_header(const ByteSource& source, const std::string& path);

// The whole file, row-major and in this machine's byte order.
Tensor read_npy(const ByteSource& source, const std::string& path);

}  // namespace polyhead
