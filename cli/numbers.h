// Elements of any view as doubles.
#pragma once

#include <vector>

#include <polyhead/tensor_view.h>

namespace polyhead::cli {

// Row-major, whatever the view's strides. bool is 0 or 1; float16 and bfloat16 throw Unsupported.
std::vector<double> numbers_of(const ConstTensorView& view);

}  // namespace polyhead::cli
