// The half of the tile that turns keys into probabilities.

// The keys [first, first + count) of one granule, and how masks touch them.
template <class T>
struct Granule {
  const T* rows[kGranule];  // the last valid row stands in for those past the end
  const T* value;           // first value row
  size_t count;
  size_t first_key = 0;
  T* probs;  // [8, W]
  const TileScoreMod* mod = nullptr;
  // The tile's only mask is that of distances, this one's key 0 standing so far before row 0.
  const TileMask* distances = nullptr;
  ptrdiff_t from_first = 0;
  bool has_bias = false;    // scratch.bias holds the summed masks, and
  bool has_hidden = false;  // hides pairs
  bool is_parked = false;   // the scores are where the probabilities will be
  bool has_limit = false;   // row r sees the granule's keys 0..limit + r, and at most count of them
  ptrdiff_t limit = 0;
  bool hides_keys() const { return has_hidden || has_limit; }
};

// What the lanes multiply with eight rows: [dims, W].
template <class T>
struct LaneRows {
  const T* data;
  size_t dims;
};

// s[key][lanes] = chain over d of lanes[d] * row[key][d], started at 0; a row's elements are `step`
// apart.
// innermost kernel
template <class T, int NV>
POLYHEAD_INLINE void dot_tile(const LaneRows<T>& lanes, const T* const (&rows)[kGranule],
                              ptrdiff_t step, Vec<T> (&s)[kGranule][NV]) {
  constexpr int kWidth = NV * kLanes<T>;
#pragma GCC unroll 2
  for (int first = 0; first < kGranule; first += kKeyTile) {
    Vec<T> acc[kKeyTile][NV] = {};
    const T* row[kKeyTile];
#pragma GCC unroll 8
    for (int j = 0; j < kKeyTile; ++j) row[j] = rows[first + j];
    const T* query = lanes.data;
    ptrdiff_t at = 0;
    for (size_t d = lanes.dims; d > 0; --d, at += step, query += kWidth) {
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

// to[key][lanes]: the chains of dot_tile.
template <class T, int NV>
__attribute__((noinline)) void dot_rows(const LaneRows<T>& lanes, const T* const (&rows)[kGranule],
                                        ptrdiff_t step, T* to) {
  Vec<T> s[kGranule][NV];  // [keys, lanes]
  dot_tile<T, NV>(lanes, rows, step, s);
#pragma GCC unroll 24
  for (int n = 0; n < kGranule * NV; ++n) store(to + n * kLanes<T>, s[n / NV][n % NV]);
}

// Which pairs of a granule its masks hide. Asked of the masks, not of the scores: one may overflow
// to -inf by itself, and a row must not feel whether its neighbours' masks brought it here.
template <class T, int NV>
struct Hiding {
  const T* bias;     // [8, W] summed masks, -inf where hidden; null: none
  Vec<T> limit[NV];  // the last key that each row sees

  POLYHEAD_INLINE Hiding(const Tile<T, NV>& tile, const Granule<T>& granule)
      : bias(granule.has_bias ? tile.scratch.bias : nullptr) {
    const Vec<T> last = splat(static_cast<T>(granule.count) - 1);
    for (int i = 0; i < NV; ++i) {
      limit[i] = positions_of(tile.in, i) + splat(static_cast<T>(granule.limit));
      limit[i] = limit[i] < last ? limit[i] : last;
    }
  }

  POLYHEAD_INLINE Vec<T> bias_of(int key, int i) const {
    return bias == nullptr ? Vec<T>{} : load(bias + (key * NV + i) * kLanes<T>);
  }

  POLYHEAD_INLINE auto operator()(int key, int i) const {
    const auto beyond = splat(static_cast<T>(key)) > limit[i];
    return beyond | (bias_of(key, i) == splat(kMasked<T>));
  }
};

template <class T, int NV>
POLYHEAD_INLINE void add_bias(const T* bias, Vec<T> (&s)[kGranule][NV]) {
#pragma GCC unroll 8
  for (int j = 0; j < kGranule; ++j) {
#pragma GCC unroll 3
    for (int i = 0; i < NV; ++i) s[j][i] += load(bias + (j * NV + i) * kLanes<T>);
  }
}

// Adds the summed masks; a hidden pair's score becomes -inf whatever it was.
template <class T, int NV>
POLYHEAD_INLINE void mask_scores(const Hiding<T, NV>& hiding, Vec<T> (&s)[kGranule][NV]) {
#pragma GCC unroll 8
  for (int j = 0; j < kGranule; ++j) {
#pragma GCC unroll 3
    for (int i = 0; i < NV; ++i) {
      s[j][i] = hiding(j, i) ? splat(kMasked<T>) : s[j][i] + hiding.bias_of(j, i);
    }
  }
}

// Raises m of the lanes whose scores left it behind by more than 16. What is pending was made under
// the old m, so it is drained first; then l and out are scaled, lane by lane: a neighbour's rise
// changes no bit here. A lane's first rise scales nothing: the factor could overflow on zeros.
template <class T, int NV>
__attribute__((noinline)) void raise_maximum(Tile<T, NV>& tile, const Vec<T> (&highest)[NV]) {
  constexpr int kWidth = Tile<T, NV>::kWidth;
  drain_pending<NV>(tile.chunk);
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
    for (size_t d = 0; d < tile.chunk.dims; ++d) {
      T* out = tile.chunk.out + d * kWidth + i * kLanes<T>;
      store(out, load(out) * factor);
    }
  }
}

// p = exp(s - m) into probs, l += p key by key. Hidden pairs get -0.0, which adds nothing to l and
// marks them for the guarded pass over value. `hidden(key, i)`: the lanes of vector i it hides.
template <bool kHides, class T, int NV, class Hidden>
POLYHEAD_INLINE void store_probs(Tile<T, NV>& tile, const Vec<T> (&s)[kGranule][NV], T* probs,
                                 const Hidden& hidden) {
  const Vec<T> log2e = splat(kLog2E<T>);
#pragma GCC unroll 3
  for (int i = 0; i < NV; ++i) {
    const Vec<T> m = tile.maximum[i];
    Vec<T> sum = tile.sum[i];
#pragma GCC unroll 8
    for (int j = 0; j < kGranule; ++j) {
      Vec<T> p = exp2_flushed((s[j][i] - m) * log2e);
      if constexpr (kHides) p = hidden(j, i) ? splat(T{-0.0}) : p;
      sum += p;
      store(probs + (j * NV + i) * kLanes<T>, p);
    }
    tile.sum[i] = sum;
  }
}

// What add_distances and add_bias do, without a bias in memory.
template <class T, int NV>
POLYHEAD_INLINE void add_distances_to(const Granule<T>& granule, Vec<T> (&s)[kGranule][NV]) {
  const Vec<T> factor = splat(static_cast<T>(granule.distances->factor));
#pragma GCC unroll 3
  for (int i = 0; i < NV; ++i) {
    const Vec<T> row = iota<T>() + splat(static_cast<T>(granule.from_first + i * kLanes<T>));
#pragma GCC unroll 8
    for (int j = 0; j < kGranule; ++j) {
      const Vec<T> distance = row - splat(static_cast<T>(j));
      s[j][i] += (distance < Vec<T>{} ? -distance : distance) * factor;
    }
  }
}

// Scores [keys, lanes] that have not met their masks yet.
template <bool kHides, class T, int NV>
POLYHEAD_INLINE void take_scores(Tile<T, NV>& tile, const Granule<T>& granule,
                                 Vec<T> (&s)[kGranule][NV]) {
  const Hiding<T, NV> hiding(tile, granule);
  if (granule.distances != nullptr) add_distances_to(granule, s);
  if (kHides) {
    mask_scores(hiding, s);
  } else if (granule.has_bias) {
    add_bias(tile.scratch.bias, s);
  }
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
  store_probs<kHides>(tile, s, granule.probs, hiding);
}

template <class T, int NV>
POLYHEAD_INLINE void load_parked(const T* scores, Vec<T> (&s)[kGranule][NV]) {
#pragma GCC unroll 24
  for (int n = 0; n < kGranule * NV; ++n) s[n / NV][n % NV] = load(scores + n * kLanes<T>);
}

template <bool kHides, class T, int NV>
__attribute__((noinline)) void fold_granule(Tile<T, NV>& tile, const Granule<T>& granule,
                                            ptrdiff_t step) {
  Vec<T> s[kGranule][NV];
  if (__builtin_expect(granule.is_parked, 0)) {
    load_parked<T, NV>(granule.probs, s);
  } else {
    dot_tile<T, NV>({tile.scratch.query, tile.in.head_dim}, granule.rows, step, s);
  }
  take_scores<kHides>(tile, granule, s);
}
