// Which pairs of a head take no part in out and in the weights: a function of seed, call, head,
// query and key alone, the same in forward and backward and for any tile.
//
// A granule's 8 keys and one query have a Philox counter {call, head, query, granule}: 4 words of
// 32 bits, whose low and high halves, in order, are the draws of the 8 keys. A pair is dropped if
// its draw is below the threshold. attention/dropout.h says the same one pair at a time.
#pragma once

#include <cstdint>

#include "base/philox.h"

namespace polyhead {

struct TileDropout {
  uint32_t threshold = 0;  // 0: nothing is dropped; 65536: everything
  uint64_t seed = 0;
  uint32_t call = 0;
  uint32_t head = 0;         // batch item * H + head
  uint32_t first_query = 0;  // the index that lane 0 of the tile has in the call
};

// Bit k: whether key k of a granule is dropped for one query.
inline unsigned dropped_keys(const TileDropout& dropout, uint32_t query, uint32_t granule) {
  unsigned dropped = 0;
  const auto words = philox({dropout.call, dropout.head, query, granule}, dropout.seed);
  for (unsigned k = 0; k < 8; ++k) {
    const uint32_t draw = words[k / 2] >> (16 * (k % 2)) & 0xffff;
    dropped |= unsigned{draw < dropout.threshold} << k;
  }
  return dropped;
}

// Of the appended columns: one that does not move with the number of keys.
inline constexpr uint32_t kAppendedGranule = 0xffffffff;

}  // namespace polyhead
