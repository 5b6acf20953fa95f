// What each file of the extension adds to it.
#pragma once

#include <nanobind/nanobind.h>

namespace polyhead::python {

void bind_attention(nanobind::module_& module);
void bind_kv_cache(nanobind::module_& module);
void bind_modules(nanobind::module_& module);
void bind_report(nanobind::module_& module);
void bind_tensors(nanobind::module_& module);
void bind_torch_attention(nanobind::module_& module);
void bind_torch_module(nanobind::module_& module);
void bind_torch_threads(nanobind::module_& module);

}  // namespace polyhead::python
