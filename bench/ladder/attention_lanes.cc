#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "bench/ladder/rungs.h"

namespace polyhead {
using ladder::OneHead;
}  // namespace polyhead

#define POLYHEAD_KERNEL_BODY "bench/ladder/attention_lanes.body.h"
#include "simd/for_each_isa.h"

namespace polyhead::ladder {

void lanes(Isa isa, const OneHead& head) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return avx512::lanes_head(head);
  if (isa == Isa::kAvx2) return avx2::lanes_head(head);
#endif
  static_cast<void>(isa);
  baseline::lanes_head(head);
}

}  // namespace polyhead::ladder
