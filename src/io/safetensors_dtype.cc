#include "io/safetensors_dtype.h"

#include <algorithm>
#include <iterator>

namespace polyhead {
namespace {

// As the format's reference implementation 0.8.0 has them.
constexpr SafetensorsDtype kDtypes[] = {
    {"F32", 32, DType::kFloat32},
    {"F64", 64, DType::kFloat64},
    {"F16", 16, DType::kFloat16},
    {"BF16", 16, DType::kBFloat16},
    {"BOOL", 8, DType::kBool},
    {"I32", 32, DType::kInt32},
    {"I64", 64, DType::kInt64},
    {"U8", 8, {}},
    {"I8", 8, {}},
    {"U16", 16, {}},
    {"I16", 16, {}},
    {"U32", 32, {}},
    {"U64", 64, {}},
    {"C64", 64, {}},
    {"F8_E4M3", 8, {}},
    {"F8_E5M2", 8, {}},
    {"F8_E8M0", 8, {}},
    {"F8_E4M3FNUZ", 8, {}},
    {"F8_E5M2FNUZ", 8, {}},
    {"F6_E2M3", 6, {}},
    {"F6_E3M2", 6, {}},
    {"F4", 4, {}},
};

}  // namespace

const SafetensorsDtype* find_safetensors_dtype(std::string_view name) {
  const auto* found = std::find_if(std::begin(kDtypes), std::end(kDtypes),
                                   [name](const auto& known) { return known.name == name; });
  return found == std::end(kDtypes) ? nullptr : found;
}

std::string_view safetensors_name(DType dtype) {
  return std::find_if(std::begin(kDtypes), std::end(kDtypes),
                      [dtype](const auto& known) { return known.dtype == dtype; })
      ->name;
}

}  // namespace polyhead
