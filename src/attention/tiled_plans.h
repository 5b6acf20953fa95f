// The two plans on the forward kernel: a task is a tile of query rows, of one head or of all heads.
#pragma once

#include "attention/attention_call.h"

namespace polyhead {

bool tiled_supports(const AttentionCall& call);
void run_tile_per_head(const AttentionCall& call);
void run_tile_all_heads(const AttentionCall& call);

}  // namespace polyhead
