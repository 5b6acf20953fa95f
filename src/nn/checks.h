// What the layers ask of their tensors.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include <polyhead/tensor_view.h>
#include "base/message.h"
#include "module/require.h"

namespace polyhead::nn {

// Of a layer that is yet to be made.
inline void require_float_type(const Require& require, DType dtype) {
  if (dtype == DType::kFloat32 || dtype == DType::kFloat64) return;
  require.fail("dtype", dtype_name(dtype), "float32 or float64");
}

inline void require_float(const Require& require, const ConstTensorView& view, const char* name) {
  require.given(view, name);
  if (view.dtype() == DType::kFloat32 || view.dtype() == DType::kFloat64) return;
  require.fail(name, message("dtype is ", dtype_name(view.dtype())), "float32 or float64");
}

inline void require_dense(const Require& require, const ConstTensorView& view, const char* name) {
  require.given(view, name);
  if (view.is_contiguous()) return;
  require.fail(name, "strides leave gaps or another order", "row-major without gaps");
}

inline void require_like(const Require& require, const ConstTensorView& view, const char* name,
                         const ConstTensorView& other) {
  require_dense(require, view, name);
  require_dtype(require, view, name, other.dtype());
  require.shape(view, name, other.shape());
}

// An output is the input itself, element for element, or apart from it. Both are of one shape.
inline void require_same_or_apart(const Require& require, const ConstTensorView& output,
                                  const char* name, const ConstTensorView& input) {
  const auto bytes = static_cast<size_t>(input.numel()) * dtype_bytes(input.dtype());
  const auto to = reinterpret_cast<uintptr_t>(output.data());
  const auto from = reinterpret_cast<uintptr_t>(input.data());
  if (to == from || to >= from + bytes || from >= to + bytes) return;
  require.fail(name, "overlaps an input in part", "the input itself or memory of its own");
}

// A dense float tensor as rows of its last dimension.
struct Rows {
  size_t count = 0, width = 0;

  Rows(const Require& require, const ConstTensorView& view, const char* name) {
    require_float(require, view, name);
    require_dense(require, view, name);
    if (view.rank() == 0) require.fail(name, "shape is []", "[..., width]");
    width = static_cast<size_t>(view.size(view.rank() - 1));
    count = width == 0 ? 0 : static_cast<size_t>(view.numel()) / width;
  }
};

}  // namespace polyhead::nn
