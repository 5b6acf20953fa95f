// The caller's score_mod, between the public blocks of scores and those of the kernels.
#pragma once

#include <cstdint>

#include "attention/attention_call.h"
#include "kernels/attention_score_mod.h"

namespace polyhead {

// For the rows from `row` on; the call must outlive it.
TileScoreMod tile_score_mod(const AttentionCall& call, int64_t sequence, int64_t head, int64_t row);

// What score_mod makes of one score, which is rounded to the query's dtype first.
double modified_score(const AttentionCall& call, const int64_t (&bhij)[4], double score);
// What score_mod.backward makes of its derivative.
double modified_gradient(const AttentionCall& call, const int64_t (&bhij)[4], double score,
                         double d_score);

}  // namespace polyhead
