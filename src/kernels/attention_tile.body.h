// State of one tile on its way through the keys, and its scratch memory.

inline constexpr int kGranule = 8;      // keys between two looks at the maximum, on every ISA
inline constexpr size_t kChunk = 1024;  // keys that have an m, l and out of their own
inline constexpr size_t kAhead = 8;     // granules from a prefetch to its use: some us
inline constexpr int kMaxPending = 8;   // granules of probs between two passes over value

template <class T>
inline constexpr T kMasked = -std::numeric_limits<T>::infinity();
// m moves only when a score exceeds it by this: p <= e^16 < 2^24, so that a chunk's sums of p . v
// stay finite for |v| < 2^94 = 2e28 in float32 (2^990 in float64).
template <class T>
inline constexpr T kLag = 16;
template <class T>
inline constexpr T kLog2E = static_cast<T>(1.4426950408889634074);

// Of the keys, and one for the appended columns.
template <class T>
POLYHEAD_INLINE size_t num_granules(const AttentionTile<T>& in) {
  return (in.kv_len + kGranule - 1) / kGranule + (in.num_extra > 0);
}

// The keys that any row of a tile sees, from a multiple of 8 on; 0 and 0: none.
struct KeySpan {
  size_t begin, end;
};

template <class T>
POLYHEAD_INLINE KeySpan keys_seen_by(const AttentionTile<T>& in) {
  const ptrdiff_t first = in.band.first;                                      // by row 0
  const ptrdiff_t last = in.band.last + static_cast<ptrdiff_t>(in.rows) - 1;  // by the last row
  const auto limit = static_cast<ptrdiff_t>(in.band.end) - 1;
  const auto begin = static_cast<size_t>(first < 0 ? 0 : first);
  const auto end = static_cast<size_t>((last < limit ? last : limit) + 1);
  if (last < 0 || begin >= end) return {0, 0};
  return {begin / kGranule * kGranule, end};
}

// All arrays are [n, W], W = lanes of the tile. probs: W lanes of the pending keys, or, when
// weights are wanted, of all columns (the appended ones start at a multiple of 8).
template <class T>
struct TileScratch {
  T* query;       // [D, W] transposed, times scale
  T* out;         // [Dv, W] of the running chunk
  T* total;       // [Dv, W] of the chunks before it
  T* bias;        // [8, W] summed masks of one granule
  T* probs;       // [64 or columns, W]
  T* maxima;      // [granules, W] the m that each granule's probs were made with; weights only
  T* kept_bias;   // [columns, W] summed masks and
  uint8_t* seen;  // [granules] what they leave, for the heads to come; kept masks only
  T* average;     // [columns, W] sum of the weights over the heads before; averaged weights only
  T* left;        // [3, W] how the probs of the head before become weights: m, factor, offset; same
};

// Numbers of a granule, by lanes, that have not met the rows they multiply yet.
template <class T>
struct Pending {
  const T* probs;  // [count, W]
  const T* value;  // first key's row
  size_t count;
};

// out[d][lanes] += sum over the pending keys of probs[key][lanes] * value[key][d].
template <class T>
struct ValueSum {
  T* out = nullptr;  // [dims, W]
  size_t dims = 0;
  Strided<const T> value;  // of the pending rows: the keys', at last the appended ones'
  Pending<T> pending[kMaxPending] = {};
  int num_pending = 0;
  bool guarded = false;  // a pending value row is not finite where a mask or dropout hides its key
};

template <class T, int NV>
struct Tile {
  static constexpr int kWidth = NV * kLanes<T>;
  const AttentionTile<T>& in;
  const TileDraws<T, NV>* draws = nullptr;  // for dropout
  TileScratch<T> scratch{};
  ValueSum<T> chunk = {};         // [Dv, W] of the running chunk
  int pending_limit = 0;          // granules; so that all the arrays fit L1
  Vec<T> maximum[NV] = {};        // m
  Vec<T> limit[NV] = {};          // m + 16; -inf before the first visible score
  Vec<T> sum[NV] = {};            // l
  Vec<T> total_maximum[NV] = {};  // the same, of the chunks before
  Vec<T> total_sum[NV] = {};
  int next_slot = 0;
  bool has_total = false;
};

template <class T, int NV>
POLYHEAD_INLINE void begin_chunk(Tile<T, NV>& tile) {
  for (int i = 0; i < NV; ++i) {
    tile.maximum[i] = Vec<T>{};
    tile.limit[i] = splat(kMasked<T>);
    tile.sum[i] = Vec<T>{};
  }
  const size_t size = tile.chunk.dims * Tile<T, NV>::kWidth;
  __builtin_memset(tile.chunk.out, 0, size * sizeof(T));
}
