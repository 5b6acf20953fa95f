// A tile of few query rows: what attention_forward.h specifies, bit for bit, where lanes of queries
// would be idle.

// Sizes and strides are taken out of the tile before a loop that stores: a store may be anywhere.
template <class T>
POLYHEAD_INLINE void begin_row(const AttentionTile<T>& in, Row<T>& row, size_t r) {
  const size_t dims = in.head_dim;
  const Strided<const T> query = rows_from(in.query, r);
  const Vec<T> scale = splat(in.scale);
  T* to = row.query;
  for (size_t d = 0; d < dims; d += kLanes<T>) {
    const T* from = query.data + static_cast<ptrdiff_t>(d) * query.column_stride;
    const size_t n = at_most(dims - d, kLanes<T>);
    store(to + d, load_row(from, query.column_stride, n) * scale);
  }
  const auto position = static_cast<ptrdiff_t>(position_of(in, r));
  const ptrdiff_t begin = in.band.first + position, end = in.band.last + position + 1;
  row.key_begin = begin < 0 ? 0 : static_cast<size_t>(begin);
  row.key_end = end < 0 ? 0 : at_most(static_cast<size_t>(end), in.band.end);
  row.index = in.dropout.first_query + static_cast<uint32_t>(r);
  row.has_bias = false;
  row.has_total = false;
}

template <class T>
POLYHEAD_INLINE void begin_row_chunk(Row<T>& row, size_t dims) {
  row.maximum = Vec<T>{};
  row.limit = splat(kMasked<T>);
  row.sum = Vec<T>{};
  T* out = row.out;
  for (size_t d = 0; d < dims; d += kLanes<T>) store(out + d, Vec<T>{});
}

template <class T>
POLYHEAD_INLINE void end_row_chunk(Row<T>& row, size_t dims) {
  if (!row.has_total) {
    std::swap(row.out, row.total);
    row.total_maximum = row.maximum;
    row.total_sum = row.sum;
    row.has_total = true;
    return;
  }
  const ChunkFold<Vec<T>> fold(row.total_maximum, row.total_sum, row.maximum, row.sum);
  row.total_maximum = fold.maximum;
  row.total_sum = fma(row.sum, fold.add, row.total_sum * fold.keep);
  for (size_t d = 0; d < dims; d += kLanes<T>) {
    store(row.total + d, fma(load(row.out + d), fold.add, load(row.total + d) * fold.keep));
  }
}

// At most `most` keys from `key` on, as many as follow each other, each row as far as it sees.
// Returns how many.
template <class T>
POLYHEAD_INLINE size_t fold_stretch(const RowTile<T>& tile, size_t key, size_t most) {
  const AttentionTile<T>& in = tile.in;
  const KeyRun<T> run = keys_from(in, key);
  const size_t count = at_most(run.count, most);
  Errands<T> errands;
  if (in.keys_are_far) errands = errands_of(in, tile.pace, key, count, keys_seen_by(in).end);
  const Stretch<T> stretch{.key = run.key,
                           .value = run.value,
                           .errands = &errands,
                           .count = count,
                           .column = in.wants_weights ? key : 0,
                           .granule = static_cast<uint32_t>(key / kGranule),
                           .first_key = key,
                           .in_blocks = in_pages(in)};
  hide_stretch(tile, stretch);
  score_stretch(tile, stretch);
  cap_stretch(tile, stretch);
  modify_stretch(tile, stretch);
  for (size_t r = 0; r < in.rows; ++r) {
    Row<T>& row = tile.rows[r];
    row.waits = false;
    if (row.key_end > key) fold_row(tile, row, stretch, at_most(count, row.key_end - key));
  }
  add_waiting(tile, stretch);
  return count;
}

// The sums of a chunk, [rows, Dv and m and l]; dims are whole vectors, as the rows' own.
template <class T>
__attribute__((noinline)) void leave_rows(const RowTile<T>& tile, T* to) {
  const size_t dims = round_up(tile.in.v_head_dim, kLanes<T>);
  for (size_t r = 0; r < tile.in.rows; ++r, to += dims + 2 * kLanes<T>) {
    const Row<T>& row = tile.rows[r];
    __builtin_memcpy(to, row.out, dims * sizeof(T));
    store(to + dims, row.maximum);
    store(to + dims + kLanes<T>, row.sum);
  }
}

template <class T>
__attribute__((noinline)) void take_rows(const RowTile<T>& tile, const T* from) {
  const size_t dims = round_up(tile.in.v_head_dim, kLanes<T>);
  for (size_t r = 0; r < tile.in.rows; ++r, from += dims + 2 * kLanes<T>) {
    Row<T>& row = tile.rows[r];
    __builtin_memcpy(row.out, from, dims * sizeof(T));
    row.maximum = load(from + dims);
    row.sum = load(from + dims + kLanes<T>);
  }
}

template <class T>
POLYHEAD_INLINE void fold_all_keys(const RowTile<T>& tile) {
  const size_t rows = tile.in.rows, dims = tile.in.v_head_dim;
  const KeySpan seen = keys_seen_by(tile.in);
  // Whole blocks. What comes before the first key seen is in a page that is kept, and is masked.
  size_t key = in_pages(tile.in) ? seen.begin / kKeyBlock * kKeyBlock : seen.begin;
  do {
    const size_t chunk = key / kChunk, chunk_end = at_most(seen.end, chunk * kChunk + kChunk);
    if (takes_chunks(tile.in)) {
      take_rows(tile, sums_of(tile.in, chunk));
      key = chunk_end;
    } else if (passes_over(tile.in, chunk)) {
      key = chunk_end;
      continue;
    } else {
      for (size_t r = 0; r < rows; ++r) begin_row_chunk(tile.rows[r], dims);
      while (key < chunk_end) key += fold_stretch(tile, key, at_most(chunk_end - key, kStretch));
      if (leaves_chunk(tile.in)) return leave_rows(tile, sums_of(tile.in, chunk));
    }
    for (size_t r = 0; r < rows; ++r) end_row_chunk(tile.rows[r], dims);
  } while (key < seen.end);
}

// The appended columns: a chunk of their own, which all rows see.
template <class T>
__attribute__((noinline)) void fold_extra_columns(const RowTile<T>& tile) {
  const AttentionTile<T>& in = tile.in;
  Errands<T> nothing;
  const Stretch<T> stretch{.key = in.extra_key,
                           .value = in.extra_value,
                           .errands = &nothing,
                           .count = in.num_extra,
                           .column = extra_column(in),
                           .granule = kAppendedGranule,
                           .first_key = 0,
                           .in_blocks = false};
  for (size_t r = 0; r < in.rows; ++r) {
    begin_row_chunk(tile.rows[r], in.v_head_dim);
    tile.rows[r].has_bias = false;
  }
  score_stretch(tile, stretch);
  cap_stretch(tile, stretch);
  for (size_t r = 0; r < in.rows; ++r) {
    tile.rows[r].waits = false;
    fold_row(tile, tile.rows[r], stretch, stretch.count);
  }
  add_waiting(tile, stretch);
  for (size_t r = 0; r < in.rows; ++r) end_row_chunk(tile.rows[r], in.v_head_dim);
}

// As fold_sinks of the tile.
template <class T>
POLYHEAD_INLINE void fold_row_sink(const AttentionTile<T>& in, Row<T>& row, size_t r) {
  const T sink = sink_of(in, r);
  begin_row_chunk(row, in.v_head_dim);
  row.maximum = splat(sink);
  row.sum = splat(sink == kMasked<T> ? T{0} : T{1});
  end_row_chunk(row, in.v_head_dim);
}

template <class T>
POLYHEAD_INLINE void store_row_out(const AttentionTile<T>& in, const Row<T>& row, size_t r,
                                   const Normaliser<T, 1>& by) {
  const size_t dims = in.v_head_dim;
  const ptrdiff_t step = in.out.column_stride;
  const Vec<T> factor = by.factor[0], offset = by.offset[0];
  const T* total = row.total;
  T* out = in.out.data + static_cast<ptrdiff_t>(r) * in.out.row_stride;
  size_t d = 0;
  for (; step == 1 && d + kLanes<T> <= dims; d += kLanes<T>) {
    store(out + d, load(total + d) * factor + offset);
  }
  for (; d < dims; d += kLanes<T>) {
    const Vec<T> mean = load(total + d) * factor + offset;
    store_row(out + static_cast<ptrdiff_t>(d) * step, step, mean, at_most(dims - d, kLanes<T>));
  }
}

// Weights of the columns [first, first + n) of probs, to `to`: of this head, or added to those of
// the heads before.
template <class T>
POLYHEAD_INLINE void store_some_weights(const AttentionTile<T>& in, const Row<T>& row,
                                        const Normaliser<T, 1>& by, size_t first, size_t n, T* to) {
  const HeadSequence& heads = in.heads;
  const ptrdiff_t step = in.weights.column_stride;
  const Vec<T> count = splat(static_cast<T>(heads.count));
  for (size_t c = 0; c < n; c += kLanes<T>) {
    const size_t at = first + c;
    const Vec<T> then = rescale_factor(load(row.maxima + at), row.total_maximum);
    Vec<T> weight = weight_of(load(row.probs + at), then, by.factor[0], by.offset[0]);
    if (heads.average) {
      if (!heads.first()) weight = load(row.average + at) + weight;
      store(row.average + at, weight);
      if (!heads.last()) continue;
      weight = heads.first() ? weight : weight / count;
    }
    store_row(to + static_cast<ptrdiff_t>(c) * step, step, weight, at_most(n - c, kLanes<T>));
  }
}

template <class T>
__attribute__((noinline)) void store_row_weights(const AttentionTile<T>& in, Row<T>& row, size_t r,
                                                 const Normaliser<T, 1>& by) {
  const KeySpan seen = keys_seen_by(in);
  const size_t end = at_most(row.key_end, seen.end);
  const size_t rest = end < seen.begin ? seen.begin : end;
  __builtin_memset(row.probs, 0, seen.begin * sizeof(T));
  __builtin_memset(row.probs + rest, 0, (in.kv_len - rest) * sizeof(T));
  T* to = in.weights.data + static_cast<ptrdiff_t>(r) * in.weights.row_stride;
  store_some_weights(in, row, by, 0, in.kv_len, to);
  to += static_cast<ptrdiff_t>(in.kv_len) * in.weights.column_stride;
  store_some_weights(in, row, by, extra_column(in), in.num_extra, to);
}

template <class T>
void run_few_rows(const AttentionTile<T>& in, std::byte* workspace) {
  Row<T> rows[kFewRows<T>];
  size_t bytes;
  const RowTile<T> tile = carve_rows(in, rows, in.rows, workspace, &bytes);
  for (size_t r = 0; r < in.rows; ++r) begin_row(in, rows[r], r);
  fold_all_keys(tile);
  if (leaves_chunk(in)) return;
  if (in.num_extra > 0) fold_extra_columns(tile);
  for (size_t r = 0; r < in.rows; ++r) {
    if (in.sinks != nullptr) fold_row_sink(in, rows[r], r);
    const Vec<T> sum[1] = {rows[r].total_sum};
    const Normaliser<T, 1> normaliser(in, sum);
    store_row_out(in, rows[r], r, normaliser);
    if (in.wants_lse()) {
      store_lse_of<T>(in, r, rows[r].total_maximum[0], rows[r].total_sum[0]);
    }
    if (in.wants_weights) store_row_weights(in, rows[r], r, normaliser);
  }
}
