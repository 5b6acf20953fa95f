// The rate of fused multiply-adds one thread reaches right now: the limit every GFLOP/s is held to.
#pragma once

#include "simd/isa.h"

namespace polyhead {

// float32 GFLOP/s over at least `seconds` (>= 1 ms; shorter probes lie) on one thread, in the given
// ISA: 24 independent chains in registers, no memory.
double fma_peak_gflops(Isa isa, double seconds);

}  // namespace polyhead
