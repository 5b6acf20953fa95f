// What the tests of dropout run in each region.
#include "kernels/attention_dropout.body.h"

// One granule of a tile of its own.
template <class T, int NV>
void drop_pairs_of(const TileDropout& dropout, uint32_t granule, T* probs) {
  drop_pairs(TileDraws<T, NV>(dropout), granule, probs);
}
