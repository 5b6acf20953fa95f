// Few rows: what masks, softcap and the caller do to scores.

// bias[j] += T(factor) * T(number) for the numbers of row r.
template <class T>
POLYHEAD_INLINE void add_row_numbers(const TileMask& mask, size_t r, size_t key, size_t count,
                                     T* bias) {
  T read[kStretch];
  Strided<const T> numbers = rows_from(numbers_in_place<T>(mask, key), r);
  if (numbers.data == nullptr) {
    read_numbers(mask, r, key, count, read);
    numbers = {read, 0, 1};
  }
  const Vec<T> factor = splat(static_cast<T>(mask.factor));
  const ptrdiff_t step = numbers.column_stride;
  for (size_t j = 0; j < count; j += kLanes<T>) {
    const T* from = numbers.data + static_cast<ptrdiff_t>(j) * step;
    store(bias + j, load(bias + j) + load_row(from, step, at_most(count - j, kLanes<T>)) * factor);
  }
}

// bias[j] = -inf where a boolean mask hides key j from row r; whether it hides any.
template <class T>
POLYHEAD_INLINE bool hide_keys(const TileMask& of_tile, size_t r, size_t key, size_t count,
                               T* bias) {
  const TileMask mask = boolean_from_row(of_tile, r);
  bool hides = false;
  for (size_t j = 0; j < count; j += kGranule, bias += kGranule) {
    uint64_t word;
    const size_t keys = at_most(count - j, kGranule);
    const Visibility seen = hidden_words<1>(mask, key + j, keys, 1, &word);
    if (seen == Visibility::kAll) continue;
    if (seen == Visibility::kNone) word = kAllHidden;
    hides = true;
#pragma GCC unroll 8
    for (int k = 0; k < kGranule; ++k) bias[k] = (word >> (8 * k) & 1) != 0 ? kMasked<T> : bias[k];
  }
  return hides;
}

// Sums the tensor masks of row r over `count` keys, in row.bias; false: they change nothing.
// Booleans come last: they hide whatever was added. So does the band.
template <class T>
__attribute__((noinline)) bool sum_masks(const AttentionTile<T>& in, const Row<T>& row, size_t r,
                                         size_t key, size_t count) {
  T* bias = row.bias;
  __builtin_memset(bias, 0, round_up(count, 16) * sizeof(T));
  bool changes = row.key_begin > key;
  for (int n = 0; n < in.num_masks; ++n) {
    if (is_boolean(in.masks[n])) continue;
    changes = true;
    add_row_numbers(in.masks[n], r, key, count, bias);
  }
  for (int n = 0; n < in.num_masks; ++n) {
    if (is_boolean(in.masks[n])) changes |= hide_keys(in.masks[n], r, key, count, bias);
  }
  for (size_t j = 0; j < count && key + j < row.key_begin; ++j) bias[j] = kMasked<T>;
  return changes;
}

// Some of a row's scores, from key `at` of a stretch on.
template <class T>
POLYHEAD_INLINE TileScores scores_of(const Stretch<T>& stretch, size_t r, size_t at, size_t count,
                                     T* data) {
  return {data, r, 1, stretch.first_key + at, count, static_cast<ptrdiff_t>(count), 1};
}

template <class T>
POLYHEAD_INLINE void begin_bias(Row<T>& row) {
  if (!row.has_bias) __builtin_memset(row.bias, 0, kStretch * sizeof(T));
  row.has_bias = true;
}

// Hides what the caller's score_mod says is empty, so many keys at a time.
inline constexpr size_t kAskedKeys = 64;

template <class T>
__attribute__((noinline)) void hide_empty(const RowTile<T>& tile, const Stretch<T>& stretch) {
  const TileScoreMod& mod = *tile.in.mod;
  for (size_t r = 0; r < tile.in.rows; ++r) {
    Row<T>& row = tile.rows[r];
    for (size_t at = 0; at < stretch.count; at += kAskedKeys) {
      const size_t count = at_most(stretch.count - at, kAskedKeys);
      if (!mod.is_empty(mod, scores_of<T>(stretch, r, at, count, nullptr))) continue;
      begin_bias(row);
      for (size_t j = at; j < at + count; ++j) row.bias[j] = kMasked<T>;
    }
  }
}

// What masks, the band and the caller's score_mod hide of a stretch, and what they add.
template <class T>
POLYHEAD_INLINE void hide_stretch(const RowTile<T>& tile, const Stretch<T>& stretch) {
  const AttentionTile<T>& in = tile.in;
  for (size_t r = 0; r < in.rows; ++r) {
    Row<T>& row = tile.rows[r];
    const bool masks = in.num_masks > 0 || row.key_begin > stretch.first_key;
    row.has_bias = masks && sum_masks(in, row, r, stretch.first_key, stretch.count);
  }
  if (in.mod != nullptr && in.mod->is_empty != nullptr) hide_empty(tile, stretch);
}

// Changes the scores of a row; where they become -inf its bias says so, as for a mask. Those that
// are hidden already are not shown: they may not have been computed.
template <class T>
__attribute__((noinline)) void modify_row(const RowTile<T>& tile, const Stretch<T>& stretch,
                                          size_t r) {
  const TileScoreMod& mod = *tile.in.mod;
  Row<T>& row = tile.rows[r];
  T* scores = row.probs + stretch.column;
  for (size_t j = 0; row.has_bias && j < stretch.count; ++j) {
    if (row.bias[j] == kMasked<T>) scores[j] = 0;
  }
  mod.change(mod, scores_of(stretch, r, 0, stretch.count, scores));
  for (size_t j = 0; j < stretch.count; ++j) {
    if (scores[j] != kMasked<T>) continue;
    begin_bias(row);
    row.bias[j] = kMasked<T>;
  }
}

template <class T>
POLYHEAD_INLINE void modify_stretch(const RowTile<T>& tile, const Stretch<T>& stretch) {
  for (size_t r = 0; r < tile.in.rows && tile.in.mod != nullptr; ++r) modify_row(tile, stretch, r);
}

template <class T>
POLYHEAD_INLINE void cap_stretch(const RowTile<T>& tile, const Stretch<T>& stretch) {
  for (size_t r = 0; r < tile.in.rows && tile.in.softcap > 0; ++r) {
    cap_scores<T>(tile.in, stretch.count, tile.rows[r].probs + stretch.column, nullptr);
  }
}
