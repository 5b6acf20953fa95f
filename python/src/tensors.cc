#include "tensors.h"

#include <nanobind/ndarray.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>

#include "arrays.h"
#include "bind.h"
#include "renames.h"

namespace polyhead::python {
namespace {

// DLPack's struct of this name, as far as it is read here.
struct ExchangeApi {
  uint32_t major_version, minor_version;
  void* previous;
  void* owning_functions[3];
  int (*describe)(void* tensor, nb::dlpack::dltensor* out);
};

// Found once, never freed: torch stays loaded.
struct Torch {
  PyTypeObject* tensor_type;
  const ExchangeApi* api;
} torch;

// Throws nb::import_error for a torch that this file does not know.
void find_torch(const nb::module_& module) {
  const nb::object type = module.attr("Tensor");
  const nb::object capsule = nb::getattr(type, "__dlpack_c_exchange_api__", nb::none());
  if (capsule.is_none()) {
    const nb::object version = nb::getattr(module, "__version__", nb::str("unknown"));
    throw nb::import_error((std::string("polyhead.torch: torch: version is ") +
                            nb::str(version).c_str() + "; need 2.10 or newer")
                               .c_str());
  }
  auto* api =
      static_cast<const ExchangeApi*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (api == nullptr) throw nb::python_error();
  if (api->major_version != 1 || api->describe == nullptr) {
    throw nb::import_error(("polyhead.torch: torch: its DLPack has version " +
                            std::to_string(api->major_version) + "; need version 1")
                               .c_str());
  }
  torch = {reinterpret_cast<PyTypeObject*>(nb::object(type).release().ptr()), api};
}

// The first line of the error that Python has: torch's go on with a stack of C++.
std::string first_line_of_error() {
  const nb::python_error error;
  const std::string text = nb::str(error.value()).c_str();
  return text.substr(0, text.find('\n'));
}

[[noreturn]] void refuse(const char* argument, const std::string& got) {
  const std::string need = "; need a dense torch tensor in the CPU's memory";
  throw nb::type_error((std::string(argument) + ": got " + got + need).c_str());
}

}  // namespace

TensorView tensor_view(nb::handle tensor, const char* argument) {
  if (tensor.is_none()) return {};
  if (!PyObject_TypeCheck(tensor.ptr(), torch.tensor_type)) {
    refuse(argument, nb::inst_name(tensor).c_str());
  }
  nb::dlpack::dltensor described;
  if (torch.api->describe(tensor.ptr(), &described) != 0) {
    refuse(argument, "one without such memory (" + first_line_of_error() + ")");
  }
  if (described.device.device_type != nb::device::cpu::value) {
    refuse(argument, "a tensor on another device");
  }
  const std::optional<DType> dtype = dtype_of_array(described.dtype);
  if (!dtype) refuse(argument, "a tensor of another dtype than the library's");
  const auto rank = static_cast<size_t>(described.ndim);
  auto* const data = static_cast<std::byte*>(described.data) + described.byte_offset;
  return in_names([&] { return Renames{{"tensor", argument}}; },
                  [&] {
                    return TensorView(data, *dtype, Shape(described.shape, rank),
                                      Shape(described.strides, rank));
                  });
}

bool are_plain(const nb::tuple& tensors, const nb::tuple& types) {
  for (const nb::handle tensor : tensors) {
    if (tensor.is_none()) continue;
    const auto is_its = [&](nb::handle type) { return tensor.type().is(type); };
    if (std::none_of(types.begin(), types.end(), is_its)) return false;
    nb::dlpack::dltensor described;
    if (torch.api->describe(tensor.ptr(), &described) != 0) {
      PyErr_Clear();
      return false;
    }
    if (described.device.device_type != nb::device::cpu::value) return false;
    if (nb::cast<bool>(tensor.attr("is_neg")())) return false;  // its memory has the other sign
  }
  return true;
}

bool Places::Place::operator==(const Place& other) const {
  return bytes == other.bytes && data == other.data && shape == other.shape &&
         strides == other.strides;
}

Places::Place Places::place_of(nb::handle tensor) {
  nb::dlpack::dltensor described;
  if (tensor.is_none()) return {};
  if (torch.api->describe(tensor.ptr(), &described) != 0) {  // one without memory
    PyErr_Clear();
    return {};
  }
  nb::object storage = tensor.attr("untyped_storage")();
  const auto bytes = nb::cast<size_t>(storage.attr("nbytes")());
  const auto rank = static_cast<size_t>(described.ndim);
  return {std::move(storage),
          bytes,
          static_cast<const std::byte*>(described.data) + described.byte_offset,
          {described.shape, described.shape + rank},
          {described.strides, described.strides + rank}};
}

Places::Places(const nb::tuple& tensors) {
  places_.reserve(tensors.size());
  for (const nb::handle tensor : tensors) places_.push_back(place_of(tensor));
}

int Places::first_moved(const nb::tuple& tensors) const {
  for (size_t i = 0; i < places_.size(); ++i) {
    if (!(place_of(tensors[i]) == places_[i])) return static_cast<int>(i);
  }
  return -1;
}

void bind_tensors(nb::module_& module) {
  module.def("find_torch", find_torch, nb::arg("module"));
  module.def("are_plain", are_plain, nb::arg("tensors"), nb::arg("types"));
  nb::class_<Places>(module, "Places")
      .def(nb::init<const nb::tuple&>(), nb::arg("tensors"))
      .def("first_moved", &Places::first_moved, nb::arg("tensors"));
}

}  // namespace polyhead::python
