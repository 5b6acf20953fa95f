// State of a tile of few query rows. Each goes through the keys by itself: lanes are keys while
// scores are made, and columns of value where probabilities meet them.

// The most rows of a tile that can be few: these pass a stretch in two parties, the second in L1.
template <class T>
inline constexpr size_t kFewRows = kLanes<T> < 8 ? 1 : 8;

// Whether rows are few. A tile of lanes does the work of `lanes` rows for any number of them; but
// masks and draws cost each row by itself here, and few keys do not pay for its setup. 8 rows of
// 512 keys of 64: 1.5 times as fast here with 16 lanes, 0.96 with 8 (Zen 5, 2026-11).
template <class T>
POLYHEAD_INLINE bool rows_are_few(const AttentionTile<T>& in) {
  constexpr auto kAlways = kLanes<T> < 4 ? 1 : kLanes<T> / 4;
  if (in.rows <= kAlways) return true;
  const bool idle_lanes = in.rows < kLanes<T> || in.keys_are_far;
  const bool plain = in.num_masks == 0 && in.mod == nullptr && in.dropout.threshold == 0;
  return in.rows <= kFewRows<T> && idle_lanes && plain && !in.wants_weights && in.kv_len >= 64;
}

template <class T>
struct Row {
  T* query;     // [D] times scale, zeros up to a multiple of the lanes
  T* bias;      // [256] summed masks of a stretch
  T* out;       // [Dv] of the running chunk
  T* next_out;  // [Dv] where the next stretch leaves it
  T* total;     // [Dv] of the chunks before it
  T* probs;     // [256 + 16], or [columns] where weights are wanted: scores until m is known
  T* maxima;    // [columns] the m that each prob was made with; weights only
  T* average;   // [columns] sum of the weights over the heads before; averaged weights only
  size_t key_begin, key_end;   // of the keys its band leaves; empty where the end comes first
  uint32_t index;              // its index in the call, for dropout
  Vec<T> maximum, limit, sum;  // m, m + 16, l: as in Tile, the same in all lanes
  Vec<T> total_maximum, total_sum;
  bool has_bias;  // in this stretch
  bool has_total;
  bool waits;  // its probabilities of this stretch have not met the values
};

template <class T>
struct RowTile {
  const AttentionTile<T>& in;
  Row<T>* rows;         // [rows]
  uint16_t* seen_keys;  // [256] those of a stretch that masks leave to one row
  Pace<T> pace;
};

// Up to 256 keys on their way through all rows.
template <class T>
struct Stretch {
  Strided<const T> key, value;  // from its first key on
  Errands<T>* errands;          // what is read next, to be fetched ahead
  size_t count;
  size_t column;     // of its first key in probs
  uint32_t granule;  // of its first key, for dropout
  size_t first_key;  // in the call
  bool in_blocks;    // of pages: `key` is the first block's [D, 32], the next follow it
};

// Where the appended columns stand in probs: past whole vectors of every ISA. The last block of
// keys may reach into them, which are scored after it.
template <class T>
POLYHEAD_INLINE size_t extra_column(const AttentionTile<T>& in) {
  return in.wants_weights ? round_up(in.kv_len, 16) : 0;
}

// Divides the workspace; `bytes` receives the size of all of it.
template <class T>
RowTile<T> carve_rows(const AttentionTile<T>& in, Row<T>* rows, size_t num_rows, std::byte* memory,
                      size_t* bytes) {
  size_t used = 0;
  const auto take = [&](size_t size) {
    std::byte* at = memory == nullptr ? nullptr : memory + used;
    used += round_up(size, 64);
    return at;
  };
  const auto numbers = [&](size_t count) { return reinterpret_cast<T*>(take(count * sizeof(T))); };
  const size_t columns = in.wants_weights ? extra_column(in) + kKeyBlock : 0;
  RowTile<T> tile{in, rows, reinterpret_cast<uint16_t*>(take(kStretch * sizeof(uint16_t))),
                  Pace<T>(in)};
  for (size_t r = 0; r < num_rows; ++r) {
    Row<T>& row = rows[r];
    row.query = numbers(in.head_dim);
    row.bias = numbers(kStretch);
    row.out = numbers(in.v_head_dim);
    row.next_out = numbers(in.v_head_dim);
    row.total = numbers(in.v_head_dim);
    row.probs = numbers(in.wants_weights ? columns : kStretch + 16);
    row.maxima = numbers(columns);
    row.average = numbers(in.heads.average ? columns : 0);
  }
  *bytes = used;
  return tile;
}
