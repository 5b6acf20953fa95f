// The library's refusals speak of its own functions and arguments; Python's have other names.
#pragma once

#include <polyhead/error.h>

#include <string>
#include <utility>
#include <vector>

namespace polyhead::python {

// {theirs, ours}, for the first place where theirs stands.
using Renames = std::vector<std::pair<std::string, std::string>>;

std::string renamed(std::string text, const Renames& names);

// What `call` gives; its refusal in the names that `names()` has.
template <class Names, class Call>
auto in_names(const Names& names, const Call& call) {
  try {
    return call();
  } catch (const InvalidArgument& error) {
    throw InvalidArgument(renamed(error.what(), names()));
  }
}

}  // namespace polyhead::python
