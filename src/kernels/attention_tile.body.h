// State of one tile on its way through the keys, and its scratch memory.

inline constexpr int kGranule = 8;            // keys between two looks at the maximum, on every ISA
inline constexpr size_t kChunk = kChunkKeys;  // keys that have an m, l and out of their own
inline constexpr size_t kAhead = 8;           // granules from a prefetch to its use: some us
inline constexpr int kMaxPending = 8;         // granules of probs between two passes over value

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

// Where a row stands, from row 0.
template <class T>
POLYHEAD_INLINE size_t position_of(const AttentionTile<T>& in, size_t row) {
  return in.group == 1 ? row : row / in.group;
}

template <class T>
__attribute__((noinline)) Vec<T> positions_in_groups(size_t group, size_t first) {
  Vec<T> positions{};
  for (size_t r = 0; r < kLanes<T>; ++r) {
    const size_t position = (first + r) / group;
    positions[r] = static_cast<T>(position);
  }
  return positions;
}

// Of the rows in vector i.
template <class T>
POLYHEAD_INLINE Vec<T> positions_of(const AttentionTile<T>& in, int i) {
  const auto first = static_cast<size_t>(i * kLanes<T>);
  if (__builtin_expect(in.group > 1, 0)) return positions_in_groups<T>(in.group, first);
  return iota<T>() + splat(static_cast<T>(first));
}

template <class T>
POLYHEAD_INLINE T sink_of(const AttentionTile<T>& in, size_t row) {
  return in.sinks[static_cast<ptrdiff_t>(row % in.group) * in.sink_stride];
}

template <class T>
POLYHEAD_INLINE bool in_pages(const AttentionTile<T>& in) {
  return in.pages.pages != nullptr;
}

// Keys and values from some key on, and how many of them follow each other without a gap; keys in
// pages, by blocks.
template <class T>
struct KeyRun {
  Strided<const T> key, value;
  size_t count;
  Strided<const T> key_lines;  // rows of D that lie where the keys do: in a block all together
};

template <class T>
POLYHEAD_INLINE KeyRun<T> keys_from(const AttentionTile<T>& in, size_t first) {
  KeyRun<T> run{in.key, in.value, in.kv_len - first, {}};
  size_t row = first;
  if (in_pages(in)) {
    const size_t page_len = in.pages.page_len, page = first / page_len;
    const ptrdiff_t at = in.pages.pages[page - in.pages.first_page];
    row = first - page * page_len;
    run.count = at_most(page_len - row, run.count);
    run.key.data += at * in.pages.key_step;
    run.value.data += at * in.pages.value_step;
    run.key_lines = {run.key.data + row * in.head_dim, static_cast<ptrdiff_t>(in.head_dim), 1};
    const size_t block = row / kKeyBlock * kKeyBlock;
    run.key.data += static_cast<ptrdiff_t>(block * in.head_dim + row - block);
  } else {
    run.key.data += static_cast<ptrdiff_t>(row) * run.key.row_stride;
    run.key_lines = run.key;
  }
  run.value.data += static_cast<ptrdiff_t>(row) * run.value.row_stride;
  return run;
}

// What a tile does about a chunk: another thread may do so.
template <class T>
POLYHEAD_INLINE bool passes_over(const AttentionTile<T>& in, size_t chunk) {
  return in.chunks.use == ChunkSums<T>::Use::kLeave && in.chunks.chunk != chunk;
}
template <class T>
POLYHEAD_INLINE bool takes_chunks(const AttentionTile<T>& in) {
  return in.chunks.use == ChunkSums<T>::Use::kTake;
}
template <class T>
POLYHEAD_INLINE bool leaves_chunk(const AttentionTile<T>& in) {
  return in.chunks.use == ChunkSums<T>::Use::kLeave;
}
template <class T>
POLYHEAD_INLINE T* sums_of(const AttentionTile<T>& in, size_t chunk) {
  return in.chunks.memory + chunk * in.chunks.size;
}

// The keys that any row of a tile sees, from a multiple of 8 on; 0 and 0: none.
struct KeySpan {
  size_t begin, end;
};

template <class T>
POLYHEAD_INLINE KeySpan keys_seen_by(const AttentionTile<T>& in) {
  const ptrdiff_t first = in.band.first;  // by row 0, and by the last row
  const ptrdiff_t last = in.band.last + static_cast<ptrdiff_t>(position_of(in, in.rows - 1));
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
