// Python's arrays as views, in place: nothing is copied in either direction.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <polyhead/tensor_view.h>

#include <optional>

namespace polyhead::python {

namespace nb = nanobind;

// Nothing for what the library has no name for.
std::optional<DType> dtype_of_array(nb::dlpack::dtype dtype);

// Once, before anything else of this file: at import. Looked up at a first call by two threads, one
// could wait for the lookup of the other, and that for the GIL.
void find_numpy();

// A view, and what keeps its memory alive.
struct Input {
  nb::ndarray<nb::ro> array;
  ConstTensorView view;
};

// Of a numpy array, or of any object with __dlpack__ or the buffer protocol. Throws nb::type_error
// for what is no such array, and for one of a dtype without a DType or on another device.
// `argument` opens the message: "scaled_dot_product_attention: query".
Input input(nb::handle object, const char* argument);
// Of None, a view that is not defined.
Input optional_input(nb::handle object, const char* argument);

// numpy.empty(shape, dtype); dtype float32 or float64.
struct NewArray {
  nb::object array;
  TensorView view;
};
NewArray new_array(Shape shape, DType dtype);

// A numpy array on the memory of `view`, which lives as long as `owner`; float32 or float64.
nb::object array_of(const TensorView& view, nb::handle owner, bool writable);

// [tokens, heads, columns] as the batch of one that it is for the library:
// [1, heads, tokens, columns].
template <class View>
View batch_of_one(const View& view) {
  return view.transposed(0, 1).unsqueezed(0);
}

}  // namespace polyhead::python
