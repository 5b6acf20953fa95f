// What happens to elements between a file and a tensor.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include <polyhead/tensor_view.h>
#include "io/atomic_file.h"
#include "io/byte_source.h"

namespace polyhead {

// Exact, subnormals and NaN payloads included.
float widen_float16(uint16_t bits);
float widen_bfloat16(uint16_t bits);

// float16 and bfloat16 become float32; other tensors are handed through.
Tensor widened(Tensor tensor);

// The memory of a row-major tensor.
std::span<std::byte> bytes_of(Tensor& tensor);
std::span<const std::byte> bytes_of(const Tensor& tensor);

// Throws IoError, after `what` ("tensor \"mask\": "), at a bool byte that is neither 0 nor 1: such
// a byte read as C++ bool is undefined behaviour.
void check_bools(const ByteSource& source, const std::string& what, const Tensor& tensor);

// Non-contiguous views through a row-major copy.
void write_row_major(AtomicFile& file, const ConstTensorView& tensor);

void reverse_bytes(std::span<std::byte> bytes, size_t element_bytes);  // big endian <-> little

}  // namespace polyhead
