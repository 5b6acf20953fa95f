// Scores on their way through a function of the caller's.

// A granule of a tile: [8, W], lanes being rows.
template <class T, int NV>
POLYHEAD_INLINE TileScores scores_of(const Tile<T, NV>& tile, const Granule<T>& granule, T* data) {
  return {data, 0, tile.in.rows, granule.first_key, granule.count, 1, Tile<T, NV>::kWidth};
}

// Scores that became -inf are hidden: the granule's bias says so, as for a mask.
template <class T, int NV>
__attribute__((noinline)) void hide_infinities(const Tile<T, NV>& tile, const T* scores,
                                               Granule<T>* granule) {
  const Vec<T> masked = splat(kMasked<T>);
  T* bias = tile.scratch.bias;
#pragma GCC unroll 1
  for (int n = 0; n < kGranule * NV; ++n, bias += kLanes<T>) {
    const Vec<T> before = granule->has_bias ? load(bias) : Vec<T>{};
    store(bias, load(scores + n * kLanes<T>) == masked ? masked : before);
  }
  granule->has_bias = granule->has_hidden = true;
}

template <class T, int NV>
POLYHEAD_INLINE void modify_scores(Tile<T, NV>& tile, T* scores, Granule<T>* granule) {
  granule->mod->change(*granule->mod, scores_of(tile, *granule, scores));
  Vec<T> lowest{};
#pragma GCC unroll 24
  for (int n = 0; n < kGranule * NV; ++n) {
    const Vec<T> s = load(scores + n * kLanes<T>);
    lowest = s < lowest ? s : lowest;
  }
  const T least = -std::numeric_limits<T>::max();
  if (any_greater(splat(least), lowest)) hide_infinities(tile, scores, granule);
}

// Scores that something else than a mask changes, where the probabilities will be.
template <class T, int NV>
POLYHEAD_INLINE void park_scores(Tile<T, NV>& tile, Granule<T>& granule, ptrdiff_t step) {
  dot_rows<T, NV>({tile.scratch.query, tile.in.head_dim}, granule.rows, step, granule.probs);
  if (tile.in.softcap > 0) {
    cap_scores<T>(tile.in, size_t{kGranule} * Tile<T, NV>::kWidth, granule.probs, nullptr);
  }
  if (granule.mod != nullptr) modify_scores(tile, granule.probs, &granule);
  granule.is_parked = true;
}
