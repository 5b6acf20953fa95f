// The header that save_safetensors writes.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

#include <polyhead/io.h>

namespace polyhead {

struct SafetensorsLayout {
  std::string header;              // the length, the JSON and its padding
  std::vector<size_t> data_order;  // indices of the tensors as their data follows
};

// Throws InvalidArgument for a name, value or tensor that a reader would refuse.
SafetensorsLayout plan_safetensors(const std::string& where, const NamedTensors& tensors,
                                   const std::map<std::string, std::string>& metadata);

}  // namespace polyhead
