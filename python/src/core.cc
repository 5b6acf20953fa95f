// polyhead._core: the library as Python's own files see it; no public names are made here.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>
#include <polyhead/error.h>
#include <polyhead/runtime.h>

#include "arrays.h"
#include "bind.h"

namespace polyhead::python {
namespace {

// The other exceptions pass as nanobind maps their bases: InvalidArgument to ValueError,
// Unsupported to RuntimeError, bad_alloc to MemoryError.
void translate_io_error(const std::exception_ptr& thrown, void*) {
  try {
    std::rethrow_exception(thrown);
  } catch (const IoError& error) {
    PyErr_SetString(PyExc_OSError, error.what());
  }
}

}  // namespace
}  // namespace polyhead::python

NB_MODULE(_core, module) {
  nanobind::set_leak_warnings(false);  // torch's graphs may hold objects of ours to the end
  polyhead::python::find_numpy();
  nanobind::register_exception_translator(polyhead::python::translate_io_error);
  module.def("version", polyhead::version);
  module.def("available_isas", polyhead::available_isas);
  module.def("isa", polyhead::isa);
  module.def("set_num_threads", polyhead::set_num_threads, nanobind::arg("n"));
  module.def("get_num_threads", polyhead::num_threads);
  polyhead::python::bind_attention(module);
  polyhead::python::bind_kv_cache(module);
  polyhead::python::bind_modules(module);
  polyhead::python::bind_report(module);
  polyhead::python::bind_tensors(module);
  polyhead::python::bind_torch_attention(module);
  polyhead::python::bind_torch_module(module);
  polyhead::python::bind_torch_threads(module);
}
