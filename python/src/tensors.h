// torch's tensors as views, in place, by the table of functions that torch publishes for this
// (DLPack's exchange API): no Python runs, a tensor costs some tens of nanoseconds.
#pragma once

#include <nanobind/nanobind.h>
#include <polyhead/tensor_view.h>

namespace polyhead::python {

// None: a view that is not defined. The tensor keeps the memory. Throws nb::type_error for what is
// no dense torch tensor in the CPU's memory; `argument` opens the message.
TensorView tensor_view(nanobind::handle tensor, const char* argument);

// Whether each is None, or of exactly one of the types and dense in the CPU's memory.
bool are_plain(const nanobind::tuple& tensors, const nanobind::tuple& types);

}  // namespace polyhead::python
