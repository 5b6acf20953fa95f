// Weights out of probabilities; HeadSequence says how those of several heads meet.

// (p * exp(m_then - m)) / l. The factor may have overflowed where a lane had seen no key yet, so it
// is not multiplied with p = 0. A row with a NaN or +inf score is NaN throughout, its l being NaN.
template <class V>
POLYHEAD_INLINE V weight_of(V p, V then, V by, V offset) {
  return (p == V{} ? V{} : p * then) * by + offset;
}

template <class T, int NV>
POLYHEAD_INLINE void leave_weights(Tile<T, NV>& tile, const Vec<T> (&by)[NV],
                                   const Vec<T> (&offset)[NV]) {
  T* to = tile.scratch.left;
  for (int i = 0; i < NV; ++i, to += kLanes<T>) {
    store(to, tile.total_maximum[i]);
    store(to + Tile<T, NV>::kWidth, by[i]);
    store(to + 2 * Tile<T, NV>::kWidth, offset[i]);
  }
}

// Adds the weights that the head before left in this granule to the sum.
template <class T, int NV>
__attribute__((noinline)) void collect_weights(const Tile<T, NV>& tile, size_t granule_index) {
  constexpr int kWidth = Tile<T, NV>::kWidth;
  const HeadSequence& heads = tile.in.heads;
  if (!heads.average || heads.first()) return;
  const size_t first = granule_index * kGranule * kWidth;
  for (int i = 0; i < NV; ++i) {
    const T* left = tile.scratch.left + i * kLanes<T>;
    const Vec<T> by = load(left + kWidth), offset = load(left + 2 * kWidth);
    const T* maximum = tile.scratch.maxima + granule_index * kWidth + i * kLanes<T>;
    const Vec<T> then = rescale_factor(load(maximum), load(left));
    const T* probs = tile.scratch.probs + first + i * kLanes<T>;
    T* sum = tile.scratch.average + first + i * kLanes<T>;
#pragma GCC unroll 8
    for (int j = 0; j < kGranule; ++j, probs += kWidth, sum += kWidth) {
      const Vec<T> weight = weight_of(load(probs), then, by, offset);
      store(sum, heads.index == 1 ? weight : load(sum) + weight);
    }
  }
}
