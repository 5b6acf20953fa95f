// Walking over the elements of a view, whatever its strides.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include <polyhead/tensor_view.h>

namespace polyhead::oracle {

using Index = std::array<int64_t, kMaxRank>;

// Calls body(index) for each index of `shape` in row-major order.
template <class Body>
void for_each_index(Shape shape, const Body& body) {
  for (int64_t size : shape) {
    if (size == 0) return;
  }
  Index index{};
  while (true) {
    body(static_cast<const Index&>(index));
    size_t dim = shape.size();
    while (dim > 0 && ++index[dim - 1] == shape[dim - 1]) index[--dim] = 0;
    if (dim == 0) return;
  }
}

inline int64_t offset_of(const ConstTensorView& view, const Index& index) {
  int64_t offset = 0;
  for (int dim = 0; dim < view.rank(); ++dim) {
    offset += index[static_cast<size_t>(dim)] * view.stride(dim);
  }
  return offset;
}

// float32 and float64 only.
inline double read(const ConstTensorView& view, const Index& index) {
  const int64_t offset = offset_of(view, index);
  return view.dtype() == DType::kFloat32 ? static_cast<double>(view.data_as<float>()[offset])
                                         : view.data_as<double>()[offset];
}

inline void write(const TensorView& view, const Index& index, double x) {
  const int64_t offset = offset_of(view, index);
  if (view.dtype() == DType::kFloat32) {
    view.data_as<float>()[offset] = static_cast<float>(x);
  } else {
    view.data_as<double>()[offset] = x;
  }
}

// Sets every element to body(index).
template <class Body>
void fill_with(const TensorView& view, const Body& body) {
  for_each_index(view.shape(), [&](const Index& index) { write(view, index, body(index)); });
}

inline void fill(const TensorView& view, double x) {
  fill_with(view, [x](const Index&) { return x; });
}

inline std::string index_string(const Index& index, int rank) {
  std::string text = "[";
  for (int dim = 0; dim < rank; ++dim) {
    text += (dim ? ", " : "") + std::to_string(index[static_cast<size_t>(dim)]);
  }
  return text + "]";
}

}  // namespace polyhead::oracle
