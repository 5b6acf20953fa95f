// Few rows: keys to scores.

// body(integral_constant of `rows`), of 1 to kRowsTogether.
template <class T, class Body>
POLYHEAD_INLINE void for_so_many_rows(size_t rows, const Body& body) {
  if (rows == 1) return body(std::integral_constant<int, 1>());
  if constexpr (kRowsTogether<T> > 1) {
    if (rows == 2) return body(std::integral_constant<int, 2>());
    rows == 3 ? body(std::integral_constant<int, 3>()) : body(std::integral_constant<int, 4>());
  }
}

// body(integral_constant of how many, the rows): the parties of a tile, one after the other.
template <class T, class Body>
POLYHEAD_INLINE void for_parties(const RowTile<T>& tile, const Body& body) {
  for (size_t first = 0; first < tile.in.rows; first += kRowsTogether<T>) {
    const size_t rows = at_most(tile.in.rows - first, kRowsTogether<T>);
    for_so_many_rows<T>(rows, [&](auto n) { body(n, tile.rows + first); });
  }
}

// Keys [key, key + keys) of a stretch x columns [d, d + columns) of D.
struct Square {
  size_t key, keys, d, columns;
};

// s[lanes] for a square: the chains of a vector of keys go on, of a party at once. Between the
// steps memory is asked for what comes later, a line or a part of one each: more at a time stall
// the loads behind them (32:8, 0.69 of the rate of a stream; so 0.89; Zen 5, 2026-11,
// bench/decode).
template <int kRows, class T>
POLYHEAD_INLINE void score_square(const Row<T>* party, const Stretch<T>& stretch,
                                  const Square& square, const T* ahead, ptrdiff_t ahead_step) {
  constexpr size_t kN = kLanes<T>;
  const Strided<const T>& key = stretch.key;
  const T* at = key.data + static_cast<ptrdiff_t>(square.key) * key.row_stride +
                static_cast<ptrdiff_t>(square.d) * key.column_stride;
  Vec<T> columns[kN];
  load_square(at, key, square.keys, square.columns, columns);
  transpose(columns);
  const T* query[kRows];
  Vec<T> s[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    query[r] = party[r].query + square.d;
    s[r] = square.d == 0 ? Vec<T>{} : load(party[r].probs + stretch.column + square.key);
  }
#pragma GCC unroll 16
  for (size_t k = 0; k < kN; ++k) {
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) s[r] = fma(broadcast(query[r] + k), columns[k], s[r]);
    __builtin_prefetch(ahead + static_cast<ptrdiff_t>(k) * ahead_step);
  }
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) store(party[r].probs + stretch.column + square.key, s[r]);
}

// The score of one pair, in all lanes: a square would be mostly zeros. splat: an operand of the FMA
// in memory.
template <class T>
POLYHEAD_INLINE Vec<T> score_pair(const T* query, const T* key, ptrdiff_t step, size_t head_dim) {
  Vec<T> s{};
#pragma GCC unroll 8
  for (size_t d = 0; d < head_dim; ++d, key += step) s = fma(splat(query[d]), splat(*key), s);
  return s;
}

// Whether a row sees one of the keys [first, first + n).
template <class T>
POLYHEAD_INLINE bool any_row_sees(const RowTile<T>& tile, size_t first, size_t n) {
  for (size_t r = 0; r < tile.in.rows; ++r) {
    if (!tile.rows[r].has_bias) return true;
    for (size_t at = first; at < first + n; at += kLanes<T>) {
      const Vec<T> bias = load(tile.rows[r].bias + at);
      const Vec<T> seen = bias == splat(kMasked<T>) ? Vec<T>{} : splat(T{1});
      if (any_greater(seen, Vec<T>{})) return true;
    }
  }
  return false;
}

// The scores of a party. Two vectors of keys in turn: one's chain waits while the CPU is at the
// other's square already; a loop over the two, since a square is large. The next keys are asked for
// meanwhile, at the pace at which these are read.
template <int kRows, class T>
__attribute__((noinline)) void score_keys(const RowTile<T>& tile, const Row<T>* party,
                                          const Stretch<T>& stretch, const NearKeys& of) {
  constexpr size_t kN = kLanes<T>, kKeys = 2 * kN;
  const size_t dims = tile.in.head_dim;
  const int lines = lines_of<kN, T>(of.parties);
  const ptrdiff_t step = lines * Lines<T>::kLine / static_cast<ptrdiff_t>(kN);
  Errand<T> ahead = stretch.errands->while_scored;
  for (size_t first = of.first; first < of.first + of.count; first += kKeys) {
    const size_t keys = at_most(of.first + of.count - first, kKeys);
    if (!any_row_sees(tile, first, keys)) continue;
    for (size_t d = 0; d < dims; d += kN) {
#pragma GCC unroll 1
      for (size_t k = 0; k < keys; k += kN) {
        const Square square{first + k, at_most(keys - k, kN), d, at_most(dims - d, kN)};
        score_square<kRows>(party, stretch, square, ahead.take(lines, party->query), step);
      }
    }
  }
  stretch.errands->while_scored = ahead;
}

// Vectors of keys whose chains go on together, of all rows of a party: so many hide the latency of
// an FMA, and the registers of AVX2 hold them.
template <int kRows, class T>
constexpr int num_chains() {
  constexpr int kMost = 8 / (kRows == 3 ? 4 : kRows), kOfBlock = kKeyBlock / kLanes<T>;
  return kMost < kOfBlock ? kMost : kOfBlock;
}

// s[lanes] of so many keys from `key` on, whose columns are whole vectors, kKeyBlock apart.
// innermost kernel
template <int kRows, class T>
POLYHEAD_INLINE void score_columns(const Row<T>* party, const T* key, size_t dims, size_t to,
                                   size_t parties, Errand<T>& errand) {
  constexpr int kVecs = num_chains<kRows, T>();
  constexpr int kTogether = 8;  // columns
  const int lines = lines_of<kTogether * kVecs, T>(parties);
  const ptrdiff_t step = lines * Lines<T>::kLine / (kTogether * kVecs);
  Vec<T> s[kRows][kVecs] = {};
  const auto add_column = [&](size_t d, const T* ahead) {
    Vec<T> keys[kVecs];
#pragma GCC unroll 8
    for (int i = 0; i < kVecs; ++i) {
      keys[i] = load(key + d * kKeyBlock + i * kLanes<T>);
      __builtin_prefetch(ahead + i * step);
    }
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const Vec<T> q = broadcast(party[r].query + d);
#pragma GCC unroll 8
      for (int i = 0; i < kVecs; ++i) s[r][i] = fma(q, keys[i], s[r][i]);
    }
  };
  size_t d = 0;
  for (; d + kTogether <= dims; d += kTogether) {
    const T* ahead = errand.take(lines, party->query);
#pragma GCC unroll 8
    for (int k = 0; k < kTogether; ++k) add_column(d + k, ahead + k * kVecs * step);
  }
  for (; d < dims; ++d) add_column(d, party->query);
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int i = 0; i < kVecs; ++i) store(party[r].probs + to + i * kLanes<T>, s[r][i]);
  }
}

// score_keys of keys in blocks: whole blocks, past the last key what comes is masked.
template <int kRows, class T>
__attribute__((noinline)) void score_blocks(const RowTile<T>& tile, const Row<T>* party,
                                            const Stretch<T>& stretch, const NearKeys& of) {
  constexpr size_t kBlock = kKeyBlock, kKeys = num_chains<kRows, T>() * kLanes<T>;
  const size_t dims = tile.in.head_dim, end = of.first + of.count;
  Errand<T> ahead = stretch.errands->while_scored;
  for (size_t first = of.first; first < end; first += kBlock) {
    if (!any_row_sees(tile, first, at_most(end - first, kBlock))) continue;
    const T* block = stretch.key.data + first * dims;
    for (size_t at = 0; at < kBlock; at += kKeys) {
      const size_t to = stretch.column + first + at;
      score_columns<kRows>(party, block + at, dims, to, of.parties, ahead);
    }
  }
  stretch.errands->while_scored = ahead;
}

template <class T>
POLYHEAD_INLINE void score_stretch(const RowTile<T>& tile, const Stretch<T>& stretch) {
  const AttentionTile<T>& in = tile.in;
  const size_t dims = in.head_dim;
  if (in.rows == 1 && stretch.count == 1) {
    const Row<T>& row = *tile.rows;
    const T* key = stretch.key.data;
    const ptrdiff_t step = stretch.key.column_stride;
    const Vec<T> s =
        step == 1 ? score_pair(row.query, key, 1, dims) : score_pair(row.query, key, step, dims);
    return store(row.probs + stretch.column, s);
  }
  for (size_t r = 0; r < in.rows && dims == 0; ++r) {
    __builtin_memset(tile.rows[r].probs + stretch.column, 0, stretch.count * sizeof(T));
  }
  for_near_keys(stretch.count, tile.pace.near_keys, [&](size_t first, size_t count) {
    const NearKeys of{first, count, num_parties(in)};
    for_parties(tile, [&](auto rows, Row<T>* party) {
      stretch.in_blocks ? score_blocks<rows>(tile, party, stretch, of)
                        : score_keys<rows>(tile, party, stretch, of);
    });
  });
}
