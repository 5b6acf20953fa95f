#include <array>
#include <span>
#include <string_view>

#include <polyhead/error.h>
#include <polyhead/io.h>
#include "base/checked_math.h"
#include "base/escape.h"
#include "base/message.h"
#include "io/atomic_file.h"
#include "io/elements.h"
#include "io/input_file.h"
#include "io/npy_header.h"

namespace polyhead {
namespace {

// The tensor whose elements lie in `stored` with the first dimension running fastest.
Tensor row_major_from_fortran(const Tensor& stored) {
  std::array<int64_t, kMaxRank> strides = {};
  int64_t stride = 1;
  const auto rank = static_cast<size_t>(stored.rank());
  for (size_t i = 0; i < rank; ++i) {
    strides[i] = stride;
    stride *= stored.shape()[i];
  }
  return Tensor(
      ConstTensorView(stored.data(), stored.dtype(), stored.shape(), Shape(strides.data(), rank)));
}

const char* npy_descr(const std::string& where, DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      return "<f2";
    case DType::kFloat32:
      return "<f4";
    case DType::kFloat64:
      return "<f8";
    case DType::kInt32:
      return "<i4";
    case DType::kInt64:
      return "<i8";
    case DType::kBool:
      return "|b1";
    case DType::kBFloat16:
      break;
  }
  throw Unsupported(message(where, ": dtype is ", dtype_name(dtype),
                            ", which npy does not have; widen it, or save as safetensors"));
}

std::string npy_header_text(const std::string& where, const ConstTensorView& tensor) {
  constexpr size_t kPrefixBytes = 10, kAlignmentBytes = 64;
  std::string shape;
  for (int64_t size : tensor.shape()) shape += (shape.empty() ? "" : ", ") + std::to_string(size);
  if (tensor.rank() == 1) shape += ",";
  std::string text = message("{'descr': '", npy_descr(where, tensor.dtype()),
                             "', 'fortran_order': False, 'shape': (", shape, "), }");
  text.resize(round_up(kPrefixBytes + text.size() + 1, kAlignmentBytes) - kPrefixBytes - 1, ' ');
  text += '\n';
  const auto length = text.size();
  return std::string("\x93NUMPY\x01\x00", 8) + static_cast<char>(length & 0xff) +
         static_cast<char>(length >> 8) + text;
}

}  // namespace

Tensor read_npy(const ByteSource& source, const std::string& path) {
  const NpyHeader header = parse_npy_header(source, path);
  Tensor tensor(header.dtype, header.shape);
  source.read(header.data_start, bytes_of(tensor));
  source.check_unchanged();
  check_bools(source, "", tensor);
  if (header.big_endian) reverse_bytes(bytes_of(tensor), dtype_bytes(header.dtype));
  return header.fortran_order ? row_major_from_fortran(tensor) : tensor;
}

Tensor load_npy(const std::string& path) { return read_npy(InputFile("load_npy", path), path); }

void save_npy(const std::string& path, const ConstTensorView& tensor) {
  const std::string where = message("save_npy: ", escaped(path));
  if (!tensor.defined()) throw InvalidArgument(where + ": tensor: is not defined; need one");
  const std::string header = npy_header_text(where, tensor);
  AtomicFile file("save_npy", path);
  file.write(std::string_view(header));
  write_row_major(file, tensor);
  file.commit();
}

}  // namespace polyhead
