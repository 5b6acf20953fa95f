// Few rows over keys that are far: what is fetched ahead of its use, and when.

inline constexpr size_t kStretch = 256;  // keys whose scores wait in L1

// Rows that go through a stretch together, in registers: so many vectors of scores or of sums.
template <class T>
inline constexpr size_t kRowsTogether = kLanes<T> < 8 ? 1 : 4;

static_assert(kStretch % kKeyBlock == 0 && kChunk % kStretch == 0 && kKeyBlock % kGranule == 0);

template <class T>
POLYHEAD_INLINE Strided<const T> rows_from(Strided<const T> matrix, size_t row) {
  matrix.data += static_cast<ptrdiff_t>(row) * matrix.row_stride;
  return matrix;
}

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

// Calls use(first, count) for the keys of a stretch, so many at a time.
template <class Use>
POLYHEAD_INLINE void for_near_keys(size_t count, size_t near, const Use& use) {
  for (size_t first = 0; first < count; first += near) use(first, at_most(count - first, near));
}

// Some keys of a stretch, which all parties read in turn.
struct NearKeys {
  size_t first, count, parties;
};

// Lines that a party asks for while it reads so many vectors: together they ask for as many as they
// read.
template <int kVecs, class T>
POLYHEAD_INLINE constexpr int lines_of(size_t parties) {
  return static_cast<int>((kVecs * sizeof(Vec<T>) + 64 * parties - 1) / (64 * parties));
}

// What to fetch while a stretch's keys are scored, and while its values are summed.
template <class T>
struct Errands {
  Errand<T> while_scored, while_summed;
};

// For the stretch of `count` keys at `key`; the tile sees keys before `end`. What is far is asked
// for in the order in which it is read: keys, values, the keys after them.
template <class T>
POLYHEAD_INLINE Errands<T> errands_of(const AttentionTile<T>& in, const Pace<T>& pace, size_t key,
                                      size_t count, size_t end) {
  const size_t dims = in.head_dim, v_dims = in.v_head_dim;
  const KeyRun<T> run = keys_from(in, key);
  const KeyRun<T> next = key + count < end ? keys_from(in, key + count) : KeyRun<T>{};
  const size_t keys = at_most(count, pace.lead_keys), values = at_most(count, pace.lead_values);
  const size_t next_keys = at_most(next.count, pace.lead_keys);
  return {{Lines<T>(rows_from(run.key_lines, keys), count - keys, dims),
           Lines<T>(run.value, values, v_dims)},
          {Lines<T>(rows_from(run.value, values), count - values, v_dims),
           Lines<T>(next.key_lines, next_keys, dims)}};
}
