// What a file includes before simd/for_each_isa.h, and how it reaches what that has compiled.
#pragma once

#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "simd/isa.h"

// POLYHEAD_ON_ISA(isa, name<T>(x)): that expression in the region of `isa`, which this CPU has.
#if defined(__x86_64__)
#define POLYHEAD_ON_ISA(isa, ...)                                      \
  ((isa) == ::polyhead::Isa::kAvx512 ? ::polyhead::avx512::__VA_ARGS__ \
   : (isa) == ::polyhead::Isa::kAvx2 ? ::polyhead::avx2::__VA_ARGS__   \
                                     : ::polyhead::baseline::__VA_ARGS__)
#elif defined(__aarch64__)
#define POLYHEAD_ON_ISA(isa, ...)                                  \
  ((isa) == ::polyhead::Isa::kNeon ? ::polyhead::neon::__VA_ARGS__ \
                                   : ::polyhead::baseline::__VA_ARGS__)
#else  // one choice; it is still a choice, so that `isa` is used and name<T> has one meaning
#define POLYHEAD_ON_ISA(isa, ...)                                          \
  ((isa) == ::polyhead::Isa::kBaseline ? ::polyhead::baseline::__VA_ARGS__ \
                                       : ::polyhead::baseline::__VA_ARGS__)
#endif
