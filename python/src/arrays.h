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

// The dtypes that an argument may have, as messages say them.
inline constexpr const char* kFloats = "float32 or float64";
inline constexpr const char* kBoolOrFloats = "bool, float32 or float64";
inline constexpr const char* kIntegers = "int32 or int64";
inline constexpr const char* kNumbers = "float32, float64, bool, int32 or int64";

// Of a numpy array, or of any object with __dlpack__ or the buffer protocol. Throws nb::type_error
// for what is no such array, and for one of a dtype without a DType or on another device; other
// wrong dtypes are for the caller to refuse. `argument` opens the message
// ("scaled_dot_product_attention: query"), `dtypes` say in it what is needed.
Input input(nb::handle object, const char* argument, const char* dtypes);
// Of None, a view that is not defined.
Input optional_input(nb::handle object, const char* argument, const char* dtypes);

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
