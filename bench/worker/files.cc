#include "bench/worker/files.h"

#include <fstream>
#include <stdexcept>

namespace polyhead::bench {
namespace {

std::streamsize bytes_of(const ConstTensorView& tensor) {
  return static_cast<std::streamsize>(static_cast<size_t>(tensor.numel()) *
                                      dtype_bytes(tensor.dtype()));
}

}  // namespace

Tensor read_tensor(const std::string& path, DType dtype, Shape shape) {
  Tensor tensor(dtype, shape);
  std::ifstream file(path, std::ios::binary);
  if (!file.read(static_cast<char*>(tensor.data()), bytes_of(tensor)) || file.peek() != EOF) {
    throw std::runtime_error(path + ": must hold exactly " + std::to_string(bytes_of(tensor)) +
                             " bytes");
  }
  return tensor;
}

void write_tensor(const std::string& path, const ConstTensorView& tensor) {
  std::ofstream file(path, std::ios::binary);
  file.write(static_cast<const char*>(tensor.data()), bytes_of(tensor));
  if (!file.flush()) throw std::runtime_error(path + ": cannot be written");
}

}  // namespace polyhead::bench
