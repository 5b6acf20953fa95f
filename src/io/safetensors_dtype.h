// The dtypes of the safetensors format.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include <polyhead/tensor_view.h>

namespace polyhead {

struct SafetensorsDtype {
  std::string_view name;
  int64_t bits;
  std::optional<DType> dtype;  // absent: the format knows it, we do not
};

// Null for a name that the format does not know.
const SafetensorsDtype* find_safetensors_dtype(std::string_view name);
std::string_view safetensors_name(DType dtype);

}  // namespace polyhead
