// Tensors as raw files: row-major numbers of the tensor's dtype and nothing else.
#pragma once

#include <string>

#include <polyhead/tensor_view.h>

namespace polyhead::bench {

// Throws unless the file holds exactly the tensor's bytes.
Tensor read_tensor(const std::string& path, DType dtype, Shape shape);
// A contiguous one.
void write_tensor(const std::string& path, const ConstTensorView& tensor);

}  // namespace polyhead::bench
