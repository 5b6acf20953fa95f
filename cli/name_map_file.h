// --map: names in the file -> names of ours.
#pragma once

#include <string>

#include <polyhead/multihead_attention.h>

namespace polyhead::cli {

// "bert", "vit", "llama", or a JSON file {"name in the file": "our name", ...}. Throws UsageError
// for another word, FileError for a file that is not such an object.
NameMap read_name_map(const std::string& map);

}  // namespace polyhead::cli
