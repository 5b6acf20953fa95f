// The steps from plain loops to the product's kernel: same operands, one thread, no masks.
#pragma once

#include <cstddef>

#include "simd/isa.h"

namespace polyhead::ladder {

// One head, row-major: query, key, value, out [len, head_dim]; float32.
struct OneHead {
  const float* query;
  const float* key;
  const float* value;
  float* out;
  size_t len, head_dim;
};

// v1. Idea: the formula as one would write it, a whole row of scores in memory. The yardstick.
void plain_loops(const OneHead& head);

// v2. Idea: keys in blocks of 64 with a running maximum, so that no row of scores is kept
// (FlashAttention's recurrence, one query at a time). Dropped: memory no longer grows with the
// length, but a dot product is still one chain of additions that no vector unit can share.
void streamed(const OneHead& head);

// v3. Idea: lanes are queries, a tile of scores in registers; attention_lanes.body.h. Dropped for
// v4, the product's kernel: kernels/attention_forward.h.
void lanes(Isa isa, const OneHead& head);

}  // namespace polyhead::ladder
