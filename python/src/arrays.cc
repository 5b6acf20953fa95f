#include "arrays.h"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "renames.h"

namespace polyhead::python {

using DTypeCode = nb::dlpack::dtype_code;

std::optional<DType> dtype_of_array(nb::dlpack::dtype dtype) {
  static constexpr std::pair<nb::dlpack::dtype, DType> kKnown[] = {
      {{uint8_t(DTypeCode::Float), 32, 1}, DType::kFloat32},
      {{uint8_t(DTypeCode::Float), 64, 1}, DType::kFloat64},
      {{uint8_t(DTypeCode::Bool), 8, 1}, DType::kBool},
      {{uint8_t(DTypeCode::Float), 16, 1}, DType::kFloat16},
      {{uint8_t(DTypeCode::Bfloat), 16, 1}, DType::kBFloat16},
      {{uint8_t(DTypeCode::Int), 32, 1}, DType::kInt32},
      {{uint8_t(DTypeCode::Int), 64, 1}, DType::kInt64}};
  for (const auto& [known, ours] : kKnown) {
    if (known == dtype) return ours;
  }
  return std::nullopt;
}

namespace {

// "ndarray of dtype complex64", or what is known of another object.
std::string description(nb::handle object) {
  std::string text = nb::cast<std::string>(object.type().attr("__name__"));
  if (nb::hasattr(object, "dtype")) {
    text += " of dtype " + std::string(nb::str(nb::object(object.attr("dtype"))).c_str());
  }
  return text;
}

[[noreturn]] void refuse(const char* argument, const std::string& got, const std::string& need) {
  throw nb::type_error((std::string(argument) + ": " + got + "; need " + need).c_str());
}

[[noreturn]] void refuse_object(const char* argument, const std::string& got, const char* dtypes) {
  refuse(argument, "got " + got,
         std::string("a numpy array, or an object with __dlpack__, of ") + dtypes);
}

// What is needed of numpy at each call; found once, never freed: numpy stays loaded.
struct Numpy {
  nb::handle ndarray, empty, float32, float64;
} numpy;

// What another library's own __dlpack__ gives. Not left to nanobind, which where that refuses (a
// tensor that requires grad) finds other ways.
nb::object capsule_of(nb::handle object, const char* argument, const char* dtypes) {
  // torch's view of a negated tensor shares memory whose signs are yet to be changed.
  if (nb::hasattr(object, "is_neg") && nb::cast<bool>(object.attr("is_neg")())) {
    refuse(argument, "got a negated view", "tensor.resolve_neg()");
  }
  try {
    try {
      return object.attr("__dlpack__")(nb::arg("max_version") = nb::make_tuple(1, 0));
    } catch (const nb::python_error& error) {
      if (!error.matches(PyExc_TypeError)) throw;
      return object.attr("__dlpack__")();  // older than the argument
    }
  } catch (const nb::python_error& error) {
    const std::string reason = nb::str(error.value()).c_str();
    refuse_object(argument, description(object) + " (" + reason + ")", dtypes);
  }
}

template <class Array>
Array import_array(nb::handle object, const char* argument, const char* dtypes) {
  const bool is_numpys = nb::isinstance(object, numpy.ndarray);
  nb::object source = nb::borrow(object);
  if (!is_numpys && nb::hasattr(object, "__dlpack__"))
    source = capsule_of(object, argument, dtypes);
  Array array;
  if (!nb::try_cast<Array>(source, array, false)) {
    refuse_object(argument, description(object), dtypes);
  }
  if (array.device_type() != nb::device::cpu::value) {
    refuse(argument, "got " + description(object) + " on another device", "memory of the CPU");
  }
  return array;
}

struct Geometry {
  DType dtype;
  size_t rank;
  std::array<int64_t, kMaxRank> shape{}, strides{};
};

Geometry geometry_of(const nb::ndarray<nb::ro>& array, nb::handle object, const char* argument,
                     const char* dtypes) {
  const std::optional<DType> dtype = dtype_of_array(array.dtype());
  if (!dtype) refuse_object(argument, description(object), dtypes);
  if (array.ndim() > kMaxRank) {
    throw nb::value_error((std::string(argument) + ": got " + std::to_string(array.ndim()) +
                           " dimensions; need at most " + std::to_string(kMaxRank))
                              .c_str());
  }
  if (reinterpret_cast<uintptr_t>(array.data()) % dtype_bytes(*dtype) != 0) {
    throw nb::value_error((std::string(argument) +
                           ": memory is not aligned to its elements; need a copy, as "
                           "array.copy() makes one")
                              .c_str());
  }
  Geometry geometry{*dtype, array.ndim()};
  for (size_t i = 0; i < geometry.rank; ++i) {
    geometry.shape[i] = static_cast<int64_t>(array.shape(i));
    geometry.strides[i] = array.stride(i);
  }
  return geometry;
}

}  // namespace

void find_numpy() {
  const nb::object module = nb::module_::import_("numpy");
  numpy = {nb::object(module.attr("ndarray")).release(), nb::object(module.attr("empty")).release(),
           module.attr("dtype")("float32").release(), module.attr("dtype")("float64").release()};
}

Input optional_input(nb::handle object, const char* argument, const char* dtypes) {
  return object.is_none() ? Input() : input(object, argument, dtypes);
}

Input input(nb::handle object, const char* argument, const char* dtypes) {
  Input result{import_array<nb::ndarray<nb::ro>>(object, argument, dtypes), {}};
  const Geometry geometry = geometry_of(result.array, object, argument, dtypes);
  result.view = in_names([&] { return Renames{{"tensor", argument}}; },
                         [&] {
                           return ConstTensorView(result.array.data(), geometry.dtype,
                                                  Shape(geometry.shape.data(), geometry.rank),
                                                  Shape(geometry.strides.data(), geometry.rank));
                         });
  return result;
}

NewArray new_array(Shape shape, DType dtype) {
  nb::object sizes = nb::steal(PyTuple_New(static_cast<Py_ssize_t>(shape.size())));
  for (size_t i = 0; i < shape.size(); ++i) {
    PyTuple_SetItem(sizes.ptr(), static_cast<Py_ssize_t>(i), PyLong_FromLongLong(shape[i]));
  }
  const bool is_float32 = dtype == DType::kFloat32;
  nb::object array = numpy.empty(sizes, is_float32 ? numpy.float32 : numpy.float64);
  void* const data = import_array<nb::ndarray<>>(array, "numpy.empty", kFloats).data();
  return {std::move(array), TensorView(data, dtype, shape)};
}

nb::object array_of(const TensorView& view, nb::handle owner, bool writable) {
  std::array<size_t, kMaxRank> shape{};
  std::copy(view.shape().begin(), view.shape().end(), shape.begin());
  const auto rank = static_cast<size_t>(view.rank());
  const auto bits = static_cast<uint8_t>(8 * dtype_bytes(view.dtype()));
  const nb::dlpack::dtype dtype{uint8_t(DTypeCode::Float), bits, 1};
  if (writable) {
    return nb::cast(nb::ndarray<nb::numpy>(view.data(), rank, shape.data(), owner,
                                           view.strides().data(), dtype));
  }
  return nb::cast(nb::ndarray<nb::numpy, nb::ro>(view.data(), rank, shape.data(), owner,
                                                 view.strides().data(), dtype));
}

}  // namespace polyhead::python
