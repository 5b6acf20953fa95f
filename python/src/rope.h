// Rotary positions as Python says them: a dict with the fields of polyhead::Rope.
#pragma once

#include <nanobind/nanobind.h>
#include <polyhead/rope.h>

namespace polyhead::python {

// None, or {"pairs": "halves", "base": 500000.0, "scaling": "llama3", ...}; what is left out has
// its default. Throws InvalidArgument for an unknown name or word.
Rope rope_of(nanobind::handle given);
// The other way round, every field; none: None.
nanobind::object rope_dict(const Rope& rope);

}  // namespace polyhead::python
