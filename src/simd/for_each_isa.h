// Compiles POLYHEAD_KERNEL_BODY once per instruction set, each in its own namespace and target
// region: polyhead::baseline, and polyhead::avx2 and avx512, or polyhead::neon on aarch64.
//
//   #include "simd/regions.h"
//   #define POLYHEAD_KERNEL_BODY "kernels/gemm.body.h"
//   #include "simd/for_each_isa.h"
//
// Regions, not per-file flags: under -mavx512f every inline std function the file uses would also
// be emitted for AVX-512, and the linker may keep that copy for the whole program. So all other
// includes of the file come first; inside a region nothing is included but the vector layer and the
// body. No guard: one file may include this more than once. The baseline, for CPUs before AVX2, is
// built for size.
#ifndef POLYHEAD_KERNEL_BODY
#error "define POLYHEAD_KERNEL_BODY first"
#endif

// All functions with vectors by value are always_inline, so their ABI is nobody's; GCC speaks of it
// where templates are instantiated, at the end of the file: hence no push and pop.
#pragma GCC diagnostic ignored "-Wpsabi"

#if defined(__x86_64__) && !defined(__clang__)
#pragma GCC push_options
#pragma GCC optimize("Os")
#endif
namespace polyhead::baseline {
// clang-format off: in this order
#include "simd/baseline.inc.h"
#include "simd/vector.inc.h"
#include "simd/exp2.inc.h"
#include POLYHEAD_KERNEL_BODY
// clang-format on
}  // namespace polyhead::baseline
#if defined(__x86_64__) && !defined(__clang__)
#pragma GCC pop_options
#endif

#if defined(__x86_64__)

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
namespace polyhead::avx2 {
// clang-format off: in this order
#include "simd/avx2.inc.h"
#include "simd/vector.inc.h"
#include "simd/exp2.inc.h"
#include POLYHEAD_KERNEL_BODY
// clang-format on
}  // namespace polyhead::avx2
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512bw,avx512vl,fma"))), \
                             apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma")
#endif
namespace polyhead::avx512 {
// clang-format off: in this order
#include "simd/avx512.inc.h"
#include "simd/vector.inc.h"
#include "simd/exp2.inc.h"
#include POLYHEAD_KERNEL_BODY
// clang-format on
}  // namespace polyhead::avx512
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#elif defined(__aarch64__)

// Part of the baseline of aarch64: no target to switch on.
namespace polyhead::neon {
// clang-format off: in this order
#include "simd/neon.inc.h"
#include "simd/vector.inc.h"
#include "simd/exp2.inc.h"
#include POLYHEAD_KERNEL_BODY
// clang-format on
}  // namespace polyhead::neon

#endif
#undef POLYHEAD_KERNEL_BODY
