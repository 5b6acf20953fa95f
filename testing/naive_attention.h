// What one would write first, in float32 throughout: the yardstick of the ratio alarm.
#pragma once

#include "attention/attention_call.h"

namespace polyhead::oracle {

// float32 [B, H, L, Dv] of a float32 call. Plain loops, std::exp, no fused multiply-add.
Tensor naive_attention(const AttentionCall& call);

}  // namespace polyhead::oracle
