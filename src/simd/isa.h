// Which instruction sets there are, which this CPU has, and which one is in use.
#pragma once

namespace polyhead {

enum class Isa { kBaseline, kAvx2, kAvx512, kNeon };
inline constexpr int kNumIsas = 4;

const char* isa_name(Isa isa);
bool cpu_has(Isa isa);

// The one in use. Throws InvalidArgument if POLYHEAD_ISA names one that is unknown or not here.
Isa active_isa();

}  // namespace polyhead
