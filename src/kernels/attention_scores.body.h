// The half of the tile that turns keys into probabilities.

// The keys [first, first + count) of one granule, and how masks touch them.
template <class T>
struct Granule {
  const T* rows[kGranule];  // the last valid row stands in for those past the end
  const T* value;           // first value row
  size_t count;
  T* probs;                // [8, W]
  bool has_bias = false;   // scratch.bias holds the summed masks
  bool has_limit = false;  // row r sees the granule's keys 0..limit + r, and at most count of them
  ptrdiff_t limit = 0;
  bool hides_keys() const { return has_bias || has_limit; }
};

// s[key][lanes] = chain over d of query[d][lanes] * key[d], started at 0.
// innermost kernel
template <class T, int NV>
POLYHEAD_INLINE void dot_tile(const Tile<T, NV>& tile, const Granule<T>& granule, ptrdiff_t step,
                              Vec<T> (&s)[kGranule][NV]) {
  constexpr int kWidth = Tile<T, NV>::kWidth;
#pragma GCC unroll 2
  for (int first = 0; first < kGranule; first += kKeyTile) {
    Vec<T> acc[kKeyTile][NV] = {};
    const T* row[kKeyTile];
#pragma GCC unroll 8
    for (int j = 0; j < kKeyTile; ++j) row[j] = granule.rows[first + j];
    const T* query = tile.scratch.query;
    ptrdiff_t at = 0;
    for (size_t d = tile.in.head_dim; d > 0; --d, at += step, query += kWidth) {
      Vec<T> q[NV];
#pragma GCC unroll 3
      for (int i = 0; i < NV; ++i) q[i] = load(query + i * kLanes<T>);
#pragma GCC unroll 8
      for (int j = 0; j < kKeyTile; ++j) {
        const Vec<T> k = broadcast(row[j] + at);
#pragma GCC unroll 3
        for (int i = 0; i < NV; ++i) acc[j][i] = fma(k, q[i], acc[j][i]);
      }
    }
#pragma GCC unroll 8
    for (int j = 0; j < kKeyTile; ++j) {
#pragma GCC unroll 3
      for (int i = 0; i < NV; ++i) s[first + j][i] = acc[j][i];
    }
  }
}

// Adds the summed masks; a masked pair becomes -inf whatever its score was.
template <class T, int NV>
POLYHEAD_INLINE void add_bias(const T* bias, Vec<T> (&s)[kGranule][NV]) {
  const Vec<T> masked = splat(kMasked<T>);
#pragma GCC unroll 8
  for (int j = 0; j < kGranule; ++j) {
#pragma GCC unroll 3
    for (int i = 0; i < NV; ++i) {
      const Vec<T> b = load(bias + (j * NV + i) * kLanes<T>);
      s[j][i] = b == masked ? masked : s[j][i] + b;
    }
  }
}

// Hides key j from the rows r with j > limit + r, and the keys past the end from all.
template <class T, int NV>
POLYHEAD_INLINE void hide_beyond(const Granule<T>& granule, Vec<T> (&s)[kGranule][NV]) {
  const Vec<T> last = splat(static_cast<T>(granule.count) - 1), masked = splat(kMasked<T>);
#pragma GCC unroll 3
  for (int i = 0; i < NV; ++i) {
    Vec<T> limit = iota<T>() + splat(static_cast<T>(granule.limit + i * kLanes<T>));
    limit = limit < last ? limit : last;
#pragma GCC unroll 8
    for (int j = 0; j < kGranule; ++j) {
      s[j][i] = splat(static_cast<T>(j)) > limit ? masked : s[j][i];
    }
  }
}

// Raises m of the lanes whose scores left it behind by more than 16. What is pending was made under
// the old m, so it is drained first; then l and out are scaled, lane by lane: a neighbour's rise
// changes no bit here. A lane's first rise scales nothing: the factor could overflow on zeros.
template <class T, int NV>
__attribute__((noinline)) void raise_maximum(Tile<T, NV>& tile, const Vec<T> (&highest)[NV]) {
  constexpr int kWidth = Tile<T, NV>::kWidth;
  drain_pending(tile);
  for (int i = 0; i < NV; ++i) {
    const Vec<T> one = splat(T{1}), old = tile.maximum[i];
    const auto rises = highest[i] > tile.limit[i];
    const auto started = tile.limit[i] > splat(kMasked<T>);
    const Vec<T> next = rises ? highest[i] : old;
    const Vec<T> factor = (rises & started) ? rescale_factor(old, next) : one;
    tile.maximum[i] = next;
    tile.limit[i] = rises ? next + splat(kLag<T>) : tile.limit[i];
    if (!any_greater(one, factor)) continue;
    tile.sum[i] *= factor;
    for (size_t d = 0; d < tile.in.v_head_dim; ++d) {
      T* out = tile.scratch.out + d * kWidth + i * kLanes<T>;
      store(out, load(out) * factor);
    }
  }
}

// p = exp(s - m) into probs, l += p key by key. Masked pairs get -0.0, which adds nothing to l and
// marks them for the guarded pass over value.
template <bool kHides, class T, int NV>
POLYHEAD_INLINE void store_probs(Tile<T, NV>& tile, const Vec<T> (&s)[kGranule][NV], T* probs) {
  const Vec<T> masked = splat(kMasked<T>), log2e = splat(kLog2E<T>);
#pragma GCC unroll 3
  for (int i = 0; i < NV; ++i) {
    const Vec<T> m = tile.maximum[i];
    Vec<T> sum = tile.sum[i];
#pragma GCC unroll 8
    for (int j = 0; j < kGranule; ++j) {
      Vec<T> p = exp2_flushed((s[j][i] - m) * log2e);
      if (kHides) p = s[j][i] == masked ? splat(T{-0.0}) : p;
      sum += p;
      store(probs + (j * NV + i) * kLanes<T>, p);
    }
    tile.sum[i] = sum;
  }
}

template <bool kHides, class T, int NV>
__attribute__((noinline)) void fold_granule(Tile<T, NV>& tile, const Granule<T>& granule,
                                            ptrdiff_t step) {
  Vec<T> s[kGranule][NV];  // [keys, lanes]
  dot_tile(tile, granule, step, s);
  if (kHides && granule.has_bias) add_bias(tile.scratch.bias, s);
  if (kHides && granule.has_limit) hide_beyond(granule, s);
  Vec<T> highest[NV];
  bool rises = false;
#pragma GCC unroll 3
  for (int i = 0; i < NV; ++i) {
    const Vec<T> a = maximum(maximum(s[0][i], s[1][i]), maximum(s[2][i], s[3][i]));
    const Vec<T> b = maximum(maximum(s[4][i], s[5][i]), maximum(s[6][i], s[7][i]));
    highest[i] = maximum(a, b);
    rises |= any_greater(highest[i], tile.limit[i]);
  }
  if (__builtin_expect(rises, 0)) raise_maximum(tile, highest);
  store_probs<kHides>(tile, s, granule.probs);
}
