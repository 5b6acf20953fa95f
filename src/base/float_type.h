// From a dtype known at run time to code for float or double.
#pragma once

#include <cstdint>

#include <polyhead/tensor_view.h>

namespace polyhead {

// f(float()) or f(double()); dtype is one of the two.
template <class F>
void with_float_type(DType dtype, const F& f) {
  if (dtype == DType::kFloat32) return f(float());
  f(double());
}

// Sets every element of a row-major float tensor to the next draw().
template <class Draw>
void fill_floats(const TensorView& tensor, const Draw& draw) {
  with_float_type(tensor.dtype(), [&](auto type) {
    using T = decltype(type);
    const int64_t n = tensor.numel();
    for (int64_t i = 0; i < n; ++i) tensor.data_as<T>()[i] = static_cast<T>(draw());
  });
}

}  // namespace polyhead
