// Few rows: scores to probabilities, and these times values.

// Keys of a stretch that a row sees, made with one m.
template <class T>
struct SeenKeys {
  const uint16_t* keys;
  size_t count;
  const T* probs;          // of the stretch
  Strided<const T> value;  // of the stretch
  Errand<T>* errand;       // what to fetch meanwhile
};

// 0, 1, ..: what a row sees of a stretch without masks.
struct EveryKey {
  uint16_t keys[kStretch] = {};
  constexpr EveryKey() {
    for (size_t j = 0; j < kStretch; ++j) keys[j] = static_cast<uint16_t>(j);
  }
};
inline constexpr EveryKey kEveryKey;

// l += p and out[d] += p * value[key][d], key by key, for kVecs vectors of columns at a time: as
// many chains as hide their latency. The last vectors overlap those before rather than read past a
// row; read from one place and stored in another, out is the same in both.
// innermost kernel
template <int kVecs, class T>
__attribute__((noinline)) void accumulate_row(const SeenKeys<T>& seen, Row<T>& row, size_t dims) {
  constexpr size_t kWidth = kVecs * kLanes<T>;
  constexpr int kLines = lines_of<kVecs, T>(1);
  const Vec<T> sum_before = row.sum;
  Errand<T> errand = *seen.errand;
  for (size_t d = 0; d < dims; d += kWidth) {
    const size_t first = at_most(d, dims - kWidth);
    const T* value = seen.value.data + first;
    Vec<T> acc[kVecs], sum = sum_before;
#pragma GCC unroll 8
    for (int i = 0; i < kVecs; ++i) acc[i] = load(row.out + first + i * kLanes<T>);
    for (size_t n = 0; n < seen.count; ++n) {
      const size_t key = seen.keys[n];
      const Vec<T> p = broadcast(seen.probs + key);
      const T* v = value + static_cast<ptrdiff_t>(key) * seen.value.row_stride;
      const T* ahead = errand.take(kLines, row.out);
      sum += p;
#pragma GCC unroll 8
      for (int i = 0; i < kVecs; ++i) {
        acc[i] = fma(p, load(v + i * kLanes<T>), acc[i]);
        if (i < kLines) __builtin_prefetch(ahead + i * Lines<T>::kLine);
      }
    }
#pragma GCC unroll 8
    for (int i = 0; i < kVecs; ++i) store(row.next_out + first + i * kLanes<T>, acc[i]);
    row.sum = sum;
  }
  *seen.errand = errand;
}

// The same for any strides, and for rows of value shorter than a vector.
template <class T>
__attribute__((noinline)) void accumulate_any(const SeenKeys<T>& seen, Row<T>& row, size_t dims) {
  for (size_t n = 0; n < seen.count; ++n) row.sum += broadcast(seen.probs + seen.keys[n]);
  const Strided<const T>& value = seen.value;
  for (size_t d = 0; d < dims; d += kLanes<T>) {
    const size_t width = at_most(dims - d, kLanes<T>);
    const T* first = value.data + static_cast<ptrdiff_t>(d) * value.column_stride;
    Vec<T> acc = load(row.out + d);
    for (size_t n = 0; n < seen.count; ++n) {
      const T* v = first + static_cast<ptrdiff_t>(seen.keys[n]) * value.row_stride;
      acc = fma(broadcast(seen.probs + seen.keys[n]), load_row(v, value.column_stride, width), acc);
    }
    store(row.next_out + d, acc);
  }
}

template <class T>
POLYHEAD_INLINE void accumulate(const SeenKeys<T>& seen, Row<T>& row, size_t dims) {
  if (seen.value.column_stride != 1 || dims < kLanes<T>) {
    accumulate_any(seen, row, dims);
  } else if (dims >= 8 * kLanes<T>) {
    accumulate_row<8>(seen, row, dims);
  } else if (dims >= 4 * kLanes<T>) {
    accumulate_row<4>(seen, row, dims);
  } else if (dims >= 2 * kLanes<T>) {
    accumulate_row<2>(seen, row, dims);
  } else {
    accumulate_row<1>(seen, row, dims);
  }
  std::swap(row.out, row.next_out);
}

// accumulate_row of a party, which sees every key of a stretch: a value is loaded once for all.
// innermost kernel
template <int kRows, int kVecs, class T>
__attribute__((noinline)) void accumulate_rows(const RowTile<T>& tile, Row<T>* party,
                                               const Stretch<T>& stretch, const NearKeys& of) {
  constexpr size_t kWidth = kVecs * kLanes<T>;
  const size_t dims = tile.in.v_head_dim;
  const Strided<const T> value = rows_from(stretch.value, of.first);
  const int lines = lines_of<kVecs, T>(of.parties);
  const ptrdiff_t step = lines * Lines<T>::kLine / kVecs;
  Errand<T> errand = stretch.errands->while_summed;
  const T* probs[kRows];
  Vec<T> before[kRows], sum[kRows];
  for (int r = 0; r < kRows; ++r) {
    probs[r] = party[r].probs + stretch.column + of.first;
    sum[r] = before[r] = party[r].sum;
  }
  for (size_t d = 0; d < dims; d += kWidth) {
    const size_t first = at_most(d, dims - kWidth);
    const T* v = value.data + first;
    Vec<T> acc[kRows][kVecs];
#pragma GCC unroll 32
    for (int n = 0; n < kRows * kVecs; ++n) {
      const int r = n / kVecs, i = n % kVecs;
      acc[r][i] = load(party[r].out + first + i * kLanes<T>);
      sum[r] = before[r];
    }
    for (size_t key = 0; key < of.count;) {
      const size_t turn_end = at_most(key + 4, of.count);
      const T* ahead = errand.take(static_cast<int>(turn_end - key) * lines, probs[0]);
      for (; key < turn_end; ++key, v += value.row_stride, ahead += lines * Lines<T>::kLine) {
        Vec<T> vecs[kVecs];
#pragma GCC unroll 8
        for (int i = 0; i < kVecs; ++i) vecs[i] = load(v + i * kLanes<T>);
#pragma GCC unroll 4
        for (int r = 0; r < kRows; ++r) {
          const Vec<T> p = broadcast(probs[r] + key);
          sum[r] += p;
#pragma GCC unroll 8
          for (int i = 0; i < kVecs; ++i) acc[r][i] = fma(p, vecs[i], acc[r][i]);
#pragma GCC unroll 8
          for (int i = r * kVecs / kRows; i < (r + 1) * kVecs / kRows; ++i)
            __builtin_prefetch(ahead + i * step);
        }
      }
    }
#pragma GCC unroll 32
    for (int n = 0; n < kRows * kVecs; ++n) {
      const int r = n / kVecs, i = n % kVecs;
      store(party[r].next_out + first + i * kLanes<T>, acc[r][i]);
    }
  }
  stretch.errands->while_summed = errand;
  for (int r = 0; r < kRows; ++r) {
    party[r].sum = sum[r];
    std::swap(party[r].out, party[r].next_out);
  }
}

// Vectors of columns that so many rows can have in registers, half of which are for them.
template <int kRows, class T>
inline constexpr int kColumnVecs =
    (kLanes<T> * sizeof(T) == 64 ? 16 : 8) / (kRows == 3 ? 4 : kRows);

// What rows left to be done together, if all rows did.
template <class T>
POLYHEAD_INLINE void accumulate_together(const RowTile<T>& tile, const Stretch<T>& stretch) {
  const size_t dims = tile.in.v_head_dim;
  for_near_keys(stretch.count, tile.pace.near_values, [&](size_t first, size_t count) {
    const NearKeys of{first, count, num_parties(tile.in)};
    for_parties(tile, [&](auto rows, Row<T>* party) {
      constexpr int kMost = kColumnVecs<rows, T> < 8 ? kColumnVecs<rows, T> : 8;
      if (dims >= kMost * kLanes<T>) {
        accumulate_rows<rows, kMost>(tile, party, stretch, of);
      } else if (dims >= 2 * kLanes<T>) {
        accumulate_rows<rows, 2>(tile, party, stretch, of);
      } else {
        accumulate_rows<rows, 1>(tile, party, stretch, of);
      }
    });
  });
}

// p = exp(s - m) in place of the scores [begin, end), where m moved at both; the last of a stretch
// may be followed by anything.
template <class T>
POLYHEAD_INLINE void make_probs(const RowTile<T>& tile, const Row<T>& row,
                                const Stretch<T>& stretch, size_t begin, size_t end, bool last) {
  const Vec<T> m = row.maximum, log2e = splat(kLog2E<T>);
  T* probs = row.probs + stretch.column;
  T* maxima = tile.in.wants_weights ? row.maxima + stretch.column : nullptr;
  for (size_t at = begin; at < end; at += kLanes<T>) {
    const Vec<T> p = exp2_flushed((load(probs + at) - m) * log2e);
    const size_t n = last ? kLanes<T> : at_most(end - at, kLanes<T>);
    store_row(probs + at, 1, p, n);
    if (maxima != nullptr) store_row(maxima + at, 1, m, n);
  }
}

// Of the keys a row sees, those that dropout keeps. All have their part in l.
template <class T>
__attribute__((noinline)) void drop_keys(const RowTile<T>& tile, Row<T>& row,
                                         const Stretch<T>& stretch, SeenKeys<T>* seen) {
  T* probs = row.probs + stretch.column;
  size_t kept = 0, granule = kStretch;
  unsigned dropped = 0;
  for (size_t n = 0; n < seen->count; ++n) {
    const size_t key = seen->keys[n];
    row.sum += broadcast(probs + key);
    if (key / kGranule != granule) {
      granule = key / kGranule;
      dropped = dropped_keys(tile.in.dropout, row.index,
                             stretch.granule + static_cast<uint32_t>(granule));
    }
    const bool drops = (dropped >> (key % kGranule) & 1) != 0;
    if (drops) probs[key] = 0;
    tile.seen_keys[kept] = static_cast<uint16_t>(key);
    kept += !drops;
  }
  seen->keys = tile.seen_keys;
  seen->count = kept;
}

// Whether a row may leave its probabilities of all keys of a stretch, for all rows to add at once.
template <class T>
POLYHEAD_INLINE bool can_wait(const RowTile<T>& tile, const Row<T>& row,
                              const Stretch<T>& stretch) {
  return tile.in.rows > 1 && !row.has_bias && tile.in.dropout.threshold == 0 &&
         stretch.value.column_stride == 1 && tile.in.v_head_dim >= kLanes<T>;
}

template <class T>
POLYHEAD_INLINE void add_waiting(const RowTile<T>& tile, const Stretch<T>& stretch) {
  size_t waiting = 0;
  for (size_t r = 0; r < tile.in.rows; ++r) waiting += tile.rows[r].waits;
  if (waiting == tile.in.rows) return accumulate_together(tile, stretch);
  for (size_t r = 0; r < tile.in.rows && waiting > 0; ++r) {
    Row<T>& row = tile.rows[r];
    if (!row.waits) continue;
    accumulate<T>({kEveryKey.keys, stretch.count, row.probs + stretch.column, stretch.value,
                   &stretch.errands->while_summed},
                  row, tile.in.v_head_dim);
  }
}

// Probabilities of the keys [begin, end) of a stretch, and all that they add.
template <class T>
POLYHEAD_INLINE void fold_scores(const RowTile<T>& tile, Row<T>& row, const Stretch<T>& stretch,
                                 size_t begin, size_t end, bool last) {
  if (begin == end) return;
  make_probs(tile, row, stretch, begin, end, last);
  if (begin == 0 && end == stretch.count && can_wait(tile, row, stretch)) {
    row.waits = true;
    return;
  }
  SeenKeys<T> seen{kEveryKey.keys + begin, end - begin, row.probs + stretch.column, stretch.value,
                   &stretch.errands->while_summed};
  if (row.has_bias) {
    seen.keys = tile.seen_keys;
    seen.count = 0;
    for (size_t j = begin; j < end; ++j) {
      tile.seen_keys[seen.count] = static_cast<uint16_t>(j);
      seen.count += row.bias[j] != kMasked<T>;
    }
  }
  if (tile.in.dropout.threshold == 0) return accumulate(seen, row, tile.in.v_head_dim);
  drop_keys(tile, row, stretch, &seen);
  const Vec<T> sum = row.sum;
  accumulate(seen, row, tile.in.v_head_dim);
  row.sum = sum;
}

// As raise_maximum of the tile. The row's first rise in a chunk scales nothing: all is 0.
template <class T>
POLYHEAD_INLINE void raise_row(Row<T>& row, T highest, size_t dims) {
  const Vec<T> old = row.maximum;
  const bool started = row.limit[0] > kMasked<T>;
  row.maximum = splat(highest);
  row.limit = row.maximum + splat(kLag<T>);
  if (!started) return;
  const Vec<T> factor = rescale_factor(old, row.maximum);
  row.sum *= factor;
  T* out = row.out;
  for (size_t d = 0; d < dims; d += kLanes<T>) store(out + d, load(out + d) * factor);
}

template <class T>
POLYHEAD_INLINE T highest_of(const T* scores) {
  T highest = scores[0];
#pragma GCC unroll 8
  for (int j = 1; j < kGranule; ++j) highest = scores[j] > highest ? scores[j] : highest;
  return highest;
}

// Scores between two looks at the maximum: whole vectors, whole granules.
template <class T>
inline constexpr size_t kStep = kLanes<T> > kGranule ? kLanes<T> : kGranule;

// Masks the scores [0, count) of a stretch, and those up to a whole step: -inf is left
// out of the maximum.
template <class T>
POLYHEAD_INLINE void mask_row(const Row<T>& row, T* scores, size_t count) {
  for (size_t at = 0; row.has_bias && at < count; at += kLanes<T>) {
    const Vec<T> bias = load(row.bias + at);
    store(scores + at, bias == splat(kMasked<T>) ? bias : load(scores + at) + bias);
  }
  const Vec<T> end = splat(static_cast<T>(count));
  const size_t padded = round_up(count, kStep<T>);
  for (size_t at = count / kStep<T> * kStep<T>; at < padded; at += kLanes<T>) {
    const Vec<T> key = iota<T>() + splat(static_cast<T>(at));
    store(scores + at, key < end ? load(scores + at) : splat(kMasked<T>));
  }
}

// Goes through the granules of the first `count` keys of a stretch: those between two rises of m
// are made at once.
template <class T>
__attribute__((noinline)) void fold_row(const RowTile<T>& tile, Row<T>& row,
                                        const Stretch<T>& stretch, size_t count) {
  const size_t dims = tile.in.v_head_dim;
  T* scores = row.probs + stretch.column;
  mask_row(row, scores, count);
  size_t begin = 0;
  for (size_t at = 0; at < count; at += kStep<T>) {
    bool rises = false;
    for (size_t k = 0; k < kStep<T>; k += kLanes<T>) {
      rises |= any_greater(load(scores + at + k), row.limit);
    }
    if (!rises) continue;
    const size_t end = at_most(at + kStep<T>, count);
    for (size_t granule = at; granule < end; granule += kGranule) {
      const T highest = highest_of(scores + granule);
      if (!(highest > row.limit[0])) continue;
      fold_scores(tile, row, stretch, begin, granule, false);
      begin = granule;
      raise_row(row, highest, dims);
    }
  }
  fold_scores(tile, row, stretch, begin, count, true);
}
