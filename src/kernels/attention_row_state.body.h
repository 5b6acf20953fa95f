// State of a tile of few query rows. Each goes through the keys by itself: lanes are keys while
// scores are made, and columns of value where probabilities meet them.

inline constexpr size_t kStretch = 256;  // keys whose scores wait in L1; divides kChunk

// Rows that go through a stretch together, in registers: so many vectors of scores or of sums.
template <class T>
inline constexpr size_t kRowsTogether = kLanes<T> < 8 ? 1 : 4;

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
POLYHEAD_INLINE size_t num_parties(const AttentionTile<T>& in) {
  return (in.rows + kRowsTogether<T> - 1) / kRowsTogether<T>;
}

// Rows that so many KiB hold: a granule at least, at most a stretch.
template <class T>
POLYHEAD_INLINE size_t rows_in(size_t kib, size_t dims) {
  const size_t fits = (kib << 10) / (sizeof(T) * (dims == 0 ? 1 : dims));
  return fits < kGranule ? kGranule : at_most(fits, kStretch);
}

// How far keys and values come into L1, as rows. They are asked for `lead` before they are read:
// more would be gone by then. Values are read `near` at a time by all parties in all their turns,
// keys by all parties: the later find them in L1. Four rows, heads 32:8, D = 128: 0.87 of the rate
// of a stream; with 16 KiB for both 0.81. Eight rows 0.79; with 6 and 8 KiB 0.60 (Zen 5, 2026-11).
template <class T>
struct Pace {
  size_t lead_keys, lead_values, near_keys = kStretch, near_values = kStretch;

  POLYHEAD_INLINE explicit Pace(const AttentionTile<T>& in) {
    const bool alone = num_parties(in) == 1;
    const size_t lead = alone ? 6 : 16, near = alone ? 8 : 16;
    lead_keys = rows_in<T>(lead, in.head_dim);
    lead_values = rows_in<T>(lead, in.v_head_dim);
    if (!in.keys_are_far) return;
    if (!alone) near_keys = round_up(rows_in<T>(near, in.head_dim), kKeyBlock);
    near_values = rows_in<T>(near, in.v_head_dim);
  }
};

template <class T>
struct RowTile {
  const AttentionTile<T>& in;
  Row<T>* rows;         // [rows]
  uint16_t* seen_keys;  // [256] those of a stretch that masks leave to one row
  Pace<T> pace;
};

// The lines of the first rows of a matrix, as they lie in memory; none where columns are apart.
template <class T>
struct Lines {
  static constexpr ptrdiff_t kLine = 64 / sizeof(T);
  const T *at = nullptr, *row_end = nullptr;
  ptrdiff_t gap = 0, columns = 0;
  size_t rows_left = 0;

  Lines() = default;
  POLYHEAD_INLINE Lines(const Strided<const T>& matrix, size_t rows, size_t width) {
    if (rows == 0 || width == 0 || matrix.column_stride != 1) return;
    const bool dense = matrix.row_stride == static_cast<ptrdiff_t>(width);
    at = matrix.data;
    columns = static_cast<ptrdiff_t>(dense ? rows * width : width);
    row_end = at + columns;
    gap = matrix.row_stride - columns;
    rows_left = dense ? 0 : rows - 1;
  }

  POLYHEAD_INLINE void pass_one() {
    at += kLine;
    if (at < row_end || rows_left == 0) return;
    --rows_left;
    at = row_end + gap;
    row_end = at + columns;
  }
};

// What to bring into the cache, line after line, while something else goes on: so a stream from
// memory does not stop, and the hardware sees it coming.
template <class T>
struct Errand {
  Lines<T> now, then;

  Errand() = default;
  POLYHEAD_INLINE Errand(const Lines<T>& first, const Lines<T>& second) : now(first), then(second) {
    if (now.at == now.row_end) go_on();
  }

  // So many lines, for the caller to ask for one by one; where no so many follow each other, they
  // are asked for here, and the caller gets what it has in any case.
  POLYHEAD_INLINE const T* take(int lines, const T* otherwise) {
    if (now.row_end - now.at > lines * Lines<T>::kLine) {
      const T* first = now.at;
      now.at += lines * Lines<T>::kLine;
      return first;
    }
    fetch(lines);
    return otherwise;
  }

  POLYHEAD_INLINE void fetch(int lines) {
    for (; lines > 0 && now.at < now.row_end; --lines) {
      __builtin_prefetch(now.at);
      now.pass_one();
      if (now.at >= now.row_end) go_on();
    }
  }

 private:
  POLYHEAD_INLINE void go_on() {
    now = then;
    then = {};
  }
};

// Up to 256 keys on their way through all rows.
template <class T>
struct Stretch {
  Strided<const T> key, value;            // from its first key on
  Errand<T>*while_scored, *while_summed;  // what is read next, to be fetched ahead
  size_t count;
  size_t column;     // of its first key in probs
  uint32_t granule;  // of its first key, for dropout
  size_t first_key;  // in the call
  bool in_blocks;    // of pages: `key` is the first block's [D, 32], the next follow it
};

template <class T>
POLYHEAD_INLINE Strided<const T> rows_from(Strided<const T> matrix, size_t row) {
  matrix.data += static_cast<ptrdiff_t>(row) * matrix.row_stride;
  return matrix;
}

// Calls use(first, count) for the keys of a stretch, so many at a time.
template <class Use>
POLYHEAD_INLINE void for_near_keys(size_t count, size_t near, const Use& use) {
  for (size_t first = 0; first < count; first += near) use(first, at_most(count - first, near));
}

// Where the appended columns stand in probs: past whole vectors of every ISA.
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
  const size_t columns = in.wants_weights ? extra_column(in) + 32 : 0;
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
