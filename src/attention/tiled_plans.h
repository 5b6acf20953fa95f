// The two plans on the forward kernel. Either a task is a tile of query rows of one head: its keys
// and values stay in cache from task to task. Or it is such a tile for several heads after each
// other, which have something in common: averaged weights, or masks.
#pragma once

#include "attention/attention_call.h"

namespace polyhead {

bool tiled_supports(const AttentionCall& call);
// Whether the masks are tensors of one number for each query and key, whatever the head.
bool heads_share_masks(const AttentionCall& call);
void run_tile_per_head(const AttentionCall& call);
void run_tile_all_heads(const AttentionCall& call);

}  // namespace polyhead
