// The instruction set in use, asked for as any user of the library can: this one stands outside it.
#pragma once

#include <string>

#include <polyhead/runtime.h>
#include "simd/isa.h"

namespace polyhead::nn {

inline Isa isa_in_use() {
  const std::string name = isa();
  if (name == "avx512") return Isa::kAvx512;
  if (name == "avx2") return Isa::kAvx2;
  return name == "neon" ? Isa::kNeon : Isa::kBaseline;
}

}  // namespace polyhead::nn
