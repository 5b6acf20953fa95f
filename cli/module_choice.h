// Which of the two classes a weights file is for.
#pragma once

#include <string>

#include <polyhead/multihead_attention.h>
#include "arguments.h"

namespace polyhead::cli {

struct ModuleChoice {
  bool scratch = false;
  std::string because;       // what said so, for messages: "--layout", or the file
  NameMap names = {};        // of --map
  bool map_is_idle = false;  // the file has none of the map's names
};

// By --layout, else by the map's names, else by the tensors' names in the file. Throws UsageError
// if the file leaves the choice open or num_heads unsaid, FileError if it holds no such module.
ModuleChoice choose_module(const ModuleArguments& arguments);

}  // namespace polyhead::cli
