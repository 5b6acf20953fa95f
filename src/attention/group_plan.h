// The plan for few queries, a decoder's: a tile has the rows of all heads that read the same keys,
// so that these come from memory once. What lies far apart in the call, the rows of such a tile, is
// copied to its side and back: about one key's worth for each row. Where there are fewer heads of
// keys than threads, several share the keys of a head, a chunk each.
#pragma once

#include "attention/attention_call.h"

namespace polyhead {

bool group_supports(const AttentionCall& call);
void run_tile_of_group(const AttentionCall& call);

}  // namespace polyhead
