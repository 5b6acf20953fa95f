#include <cmath>
#include <cstring>
#include <limits>

#include "bench/ladder/rungs.h"
#include "simd/regions.h"

namespace polyhead {
using ladder::OneHead;
}  // namespace polyhead

#define POLYHEAD_KERNEL_BODY "bench/ladder/attention_lanes.body.h"
#include "simd/for_each_isa.h"

namespace polyhead::ladder {

void lanes(Isa isa, const OneHead& head) { POLYHEAD_ON_ISA(isa, lanes_head(head)); }

}  // namespace polyhead::ladder
