#include "io/elements.h"

#include <algorithm>
#include <bit>
#include <utility>

namespace polyhead {

static_assert(std::endian::native == std::endian::little, "both formats are read as they lie");

float widen_float16(uint16_t bits) {
  constexpr uint32_t kExponents = 0x7c00;  // of float16; all set: infinity and NaN
  const uint32_t sign = uint32_t{bits} >> 15 << 31;
  const uint32_t magnitude = bits & 0x7fffu;
  if ((magnitude & kExponents) == kExponents) {
    return std::bit_cast<float>(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  }
  if (magnitude < 0x400) {  // subnormal: a count of 2^-24, exact in float32
    const float value = static_cast<float>(magnitude) * 0x1p-24f;
    return std::bit_cast<float>(sign | std::bit_cast<uint32_t>(value));
  }
  return std::bit_cast<float>(sign | ((magnitude << 13) + (uint32_t{127 - 15} << 23)));
}

float widen_bfloat16(uint16_t bits) { return std::bit_cast<float>(uint32_t{bits} << 16); }

Tensor widened(Tensor tensor) {
  const bool is_float16 = tensor.dtype() == DType::kFloat16;
  if (!is_float16 && tensor.dtype() != DType::kBFloat16) return tensor;
  Tensor wide(DType::kFloat32, tensor.shape());
  const auto* from = static_cast<const uint16_t*>(std::as_const(tensor).data());
  std::transform(from, from + tensor.numel(), wide.data_as<float>(),
                 is_float16 ? widen_float16 : widen_bfloat16);
  return wide;
}

std::span<std::byte> bytes_of(Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.data()),
          static_cast<size_t>(tensor.numel()) * dtype_bytes(tensor.dtype())};
}

std::span<const std::byte> bytes_of(const Tensor& tensor) {
  return bytes_of(const_cast<Tensor&>(tensor));
}

void check_bools(const ByteSource& source, const std::string& what, const Tensor& tensor) {
  if (tensor.dtype() != DType::kBool) return;
  const auto bytes = bytes_of(tensor);
  const auto bad =
      std::find_if(bytes.begin(), bytes.end(), [](auto b) { return b > std::byte{1}; });
  if (bad != bytes.end()) {
    source.fail(what, "data: bool element ", bad - bytes.begin(), " is ", static_cast<int>(*bad),
                "; need 0 or 1");
  }
}

void write_row_major(AtomicFile& file, const ConstTensorView& tensor) {
  if (!tensor.is_contiguous()) {
    const Tensor copy(tensor);
    file.write(bytes_of(copy));
    return;
  }
  const auto bytes = static_cast<size_t>(tensor.numel()) * dtype_bytes(tensor.dtype());
  file.write(std::span(static_cast<const std::byte*>(tensor.data()), bytes));
}

void reverse_bytes(std::span<std::byte> bytes, size_t element_bytes) {
  for (size_t i = 0; i < bytes.size(); i += element_bytes) {
    std::reverse(bytes.begin() + static_cast<std::ptrdiff_t>(i),
                 bytes.begin() + static_cast<std::ptrdiff_t>(i + element_bytes));
  }
}

}  // namespace polyhead
