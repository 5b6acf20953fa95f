// The library's refusals speak of its own functions and arguments; Python's have other names.
#pragma once

#include <nanobind/nanobind.h>
#include <polyhead/error.h>

#include <new>
#include <string>
#include <utility>
#include <vector>

namespace polyhead::python {

// {theirs, ours}, for the first place where theirs stands.
using Renames = std::vector<std::pair<std::string, std::string>>;

std::string renamed(std::string text, const Renames& names);
// `function: text`, unless text begins so.
std::string led(const std::string& text, const char* function);

// What `call` gives; its refusal in the names that `names()` has.
template <class Names, class Call>
auto in_names(const Names& names, const Call& call) {
  try {
    return call();
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(renamed(error.what(), names()));
  }
}

// What `call` gives; a refusal that does not name a function opens with `function`, and one for
// want of memory says so. With the GIL.
template <class Call>
auto led_by(const char* function, const Call& call) {
  try {
    return call();
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(led(error.what(), function));
  } catch (const nanobind::builtin_exception& error) {
    throw nanobind::builtin_exception(error.type(), led(error.what(), function).c_str());
  } catch (const std::bad_alloc&) {
    PyErr_SetString(
        PyExc_MemoryError,
        led("sizes: take more memory than there is; need smaller ones", function).c_str());
    throw nanobind::python_error();
  }
}

}  // namespace polyhead::python
