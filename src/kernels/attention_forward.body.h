// The forward tile: attention_forward.h says what it computes, and in which order.
// clang-format off: in this order
#include "kernels/row.body.h"
#include "kernels/attention_dropout.body.h"
#include "kernels/attention_tile.body.h"
#include "kernels/attention_load.body.h"
#include "kernels/attention_values.body.h"
#include "kernels/attention_softcap.body.h"
#include "kernels/attention_scores.body.h"
#include "kernels/attention_score_mod.body.h"
#include "kernels/attention_mask.body.h"
#include "kernels/attention_granule.body.h"
#include "kernels/attention_average.body.h"
#include "kernels/attention_store.body.h"
#include "kernels/attention_row_ahead.body.h"
#include "kernels/attention_row_state.body.h"
#include "kernels/attention_row_keys.body.h"
#include "kernels/attention_row_scores.body.h"
#include "kernels/attention_row_values.body.h"
#include "kernels/attention_row.body.h"
// clang-format on

// Where a granule's probs go: a ring, or, when weights are wanted, a place for good.
template <class T, int NV>
POLYHEAD_INLINE T* probs_of(Tile<T, NV>& tile, size_t granule_index) {
  constexpr size_t kSize = kGranule * Tile<T, NV>::kWidth;
  if (tile.in.wants_weights) {
    collect_weights(tile, granule_index);
    return tile.scratch.probs + granule_index * kSize;
  }
  tile.next_slot = tile.next_slot + 1 < tile.pending_limit ? tile.next_slot + 1 : 0;
  return tile.scratch.probs + static_cast<size_t>(tile.next_slot) * kSize;
}

template <class T, int NV>
POLYHEAD_INLINE void keep_maximum(Tile<T, NV>& tile, size_t granule_index) {
  if (!tile.in.wants_weights) return;
  T* maxima = tile.scratch.maxima + granule_index * Tile<T, NV>::kWidth;
  for (int i = 0; i < NV; ++i) store(maxima + i * kLanes<T>, tile.maximum[i]);
}

// Scores, probabilities, dropout, and a place among the pending.
template <class T, int NV>
POLYHEAD_INLINE void take_granule(Tile<T, NV>& tile, Granule<T>& granule,
                                  const Strided<const T>& key, uint32_t granule_index) {
  const bool drops = tile.in.dropout.threshold > 0;
  if (tile.in.softcap > 0 || granule.mod != nullptr) {
    park_scores(tile, granule, key.column_stride);
  }
  if (granule.hides_keys()) {
    fold_granule<true>(tile, granule, key.column_stride);
  } else {
    fold_granule<false>(tile, granule, key.column_stride);
  }
  if (drops) drop_pairs(*tile.draws, granule_index, granule.probs);
  ValueSum<T>& sum = tile.chunk;
  if (drops || granule.hides_keys()) {
    sum.guarded |= !rows_are_finite(sum.value, granule.value, granule.count, sum.dims);
  }
  sum.pending[sum.num_pending++] = {granule.probs, granule.value, granule.count};
}

// The weights of the granules from key `begin` on, which no row sees.
template <class T, int NV>
POLYHEAD_INLINE void skip_granules(Tile<T, NV>& tile, size_t begin, size_t end) {
  if (!tile.in.wants_weights) return;
  constexpr size_t kBytes = kGranule * Tile<T, NV>::kWidth * sizeof(T);
  for (size_t key = begin; key < end; key += kGranule) {
    __builtin_memset(probs_of(tile, key / kGranule), 0, kBytes);
    keep_maximum(tile, key / kGranule);
  }
}

// Asks for a granule of keys and values that comes after the one at `first`: of far ones that so
// far ahead. Near ones lie in a cache but for those that no tile has seen: tiles go from the last
// rows to the first, so a window's next one sees keys before this one's, as many as it has rows.
template <class T, int NV>
POLYHEAD_INLINE void fetch_ahead(const Tile<T, NV>& tile, size_t first, const KeySpan& seen) {
  const AttentionTile<T>& in = tile.in;
  const size_t rows = round_up(position_of(in, in.rows), kGranule);
  if (!in.keys_are_far && (first < rows || first >= seen.begin + rows)) return;
  const size_t next = in.keys_are_far ? first + kAhead * kGranule : first - rows;
  if (next + kGranule > in.band.end) return;
  if (in_pages(in) && next / in.pages.page_len < in.pages.first_page) return;  // forgotten
  const KeyRun<T> ahead = keys_from(in, next);
  prefetch_rows<kGranule>(ahead.key_lines, 0, in.head_dim);
  prefetch_rows<kGranule>(ahead.value, 0, in.v_head_dim);
}

template <class T, int NV>
POLYHEAD_INLINE void fold_key_granule(Tile<T, NV>& tile, size_t first, const KeySpan& seen) {
  const AttentionTile<T>& in = tile.in;
  Granule<T> granule;
  if (!see_granule(tile, first, &granule)) return skip_granules(tile, first, first + 1);
  fetch_ahead(tile, first, seen);
  if (tile.chunk.num_pending == tile.pending_limit) drain_pending<NV>(tile.chunk);
  granule.probs = probs_of(tile, first / kGranule);
  take_granule(tile, granule, in.key, static_cast<uint32_t>(first / kGranule));
  keep_maximum(tile, first / kGranule);
}

// The sums of a chunk: [Dv and m and l, W].
template <class T, int NV>
__attribute__((noinline)) void leave_sums(Tile<T, NV>& tile, T* to) {
  const size_t size = tile.chunk.dims * Tile<T, NV>::kWidth;
  drain_pending<NV>(tile.chunk);
  __builtin_memcpy(to, tile.chunk.out, size * sizeof(T));
  for (int i = 0; i < NV; ++i) {
    store(to + size + i * kLanes<T>, tile.maximum[i]);
    store(to + size + (NV + i) * kLanes<T>, tile.sum[i]);
  }
}

template <class T, int NV>
__attribute__((noinline)) void take_sums(Tile<T, NV>& tile, const T* from) {
  const size_t size = tile.chunk.dims * Tile<T, NV>::kWidth;
  __builtin_memcpy(tile.chunk.out, from, size * sizeof(T));
  for (int i = 0; i < NV; ++i) {
    tile.maximum[i] = load(from + size + i * kLanes<T>);
    tile.sum[i] = load(from + size + (NV + i) * kLanes<T>);
  }
}

// All keys: granules at absolute multiples of 8, in chunks of 1024.
template <class T, int NV>
POLYHEAD_INLINE void fold_keys(Tile<T, NV>& tile) {
  const KeySpan seen = keys_seen_by(tile.in);
  skip_granules(tile, 0, seen.begin);
  size_t key = seen.begin;
  do {
    const size_t chunk = key / kChunk, chunk_end = at_most(seen.end, chunk * kChunk + kChunk);
    if (takes_chunks(tile.in)) {
      take_sums(tile, sums_of(tile.in, chunk));
      key = chunk_end;
    } else if (passes_over(tile.in, chunk)) {
      key = chunk_end;
      continue;
    } else {
      begin_chunk(tile);
      for (; key < chunk_end; key += kGranule) fold_key_granule(tile, key, seen);
      if (leaves_chunk(tile.in)) return leave_sums(tile, sums_of(tile.in, chunk));
    }
    end_chunk(tile);
  } while (key < seen.end);
  skip_granules(tile, key, tile.in.kv_len);
}

// The appended columns: a chunk of their own, folded last, so that they do not move with kv_len.
template <class T, int NV>
POLYHEAD_INLINE void fold_extra(Tile<T, NV>& tile) {
  const AttentionTile<T>& in = tile.in;
  if (in.num_extra == 0) return;
  begin_chunk(tile);
  tile.chunk.value = in.extra_value;
  Granule<T> granule = granule_at(in.extra_key, in.extra_value, in.num_extra);
  const size_t index = (in.kv_len + kGranule - 1) / kGranule;
  granule.probs = probs_of(tile, index);
  take_granule(tile, granule, in.extra_key, kAppendedGranule);
  keep_maximum(tile, index);
  end_chunk(tile);
}

// A chunk of one score without a value: l = 1.
template <class T, int NV>
__attribute__((noinline)) void fold_sinks(Tile<T, NV>& tile) {
  begin_chunk(tile);
  for (size_t r = 0; r < tile.in.rows; ++r) {
    const T sink = sink_of(tile.in, r);
    tile.maximum[r / kLanes<T>][r % kLanes<T>] = sink;
    tile.sum[r / kLanes<T>][r % kLanes<T>] = sink == kMasked<T> ? T{0} : T{1};
  }
  end_chunk(tile);
}

// Divides the workspace; `bytes` receives the size of all of it.
template <class T>
TileScratch<T> carve_scratch(const AttentionTile<T>& in, size_t width, std::byte* memory,
                             size_t* bytes) {
  size_t used = 0;
  const auto take = [&](size_t rows) {
    T* at = memory == nullptr ? nullptr : reinterpret_cast<T*>(memory + used);
    used += round_up(rows * width * sizeof(T), 64);
    return at;
  };
  const size_t granules = num_granules(in), columns = granules * kGranule;
  const HeadSequence& heads = in.heads;
  TileScratch<T> scratch{};
  scratch.query = take(in.head_dim);
  scratch.out = take(in.v_head_dim);
  scratch.total = take(in.v_head_dim);
  scratch.bias = take(kGranule);
  scratch.probs = take(in.wants_weights ? columns : size_t{kGranule * kMaxPending});
  scratch.maxima = take(in.wants_weights ? granules : 0);
  scratch.kept_bias = take(heads.keep_masks ? columns : 0);
  scratch.seen = reinterpret_cast<uint8_t*>(take(heads.keep_masks ? granules : 0));
  scratch.average = take(heads.average ? columns : 0);
  scratch.left = take(heads.average ? 3 : 0);
  *bytes = used;
  return scratch;
}

template <class T, int NV>
void run_tile(const AttentionTile<T>& in, std::byte* workspace) {
  size_t bytes;
  const TileDraws<T, NV> draws(in.dropout);
  Tile<T, NV> tile{in};
  tile.draws = &draws;
  tile.scratch = carve_scratch(in, Tile<T, NV>::kWidth, workspace, &bytes);
  tile.chunk.out = tile.scratch.out;
  tile.chunk.dims = in.v_head_dim;
  tile.chunk.value = in.value;
  tile.pending_limit = in.head_dim + in.v_head_dim > 160 ? kMaxPending / 2 : kMaxPending;
  load_query(tile);
  fold_keys(tile);
  if (leaves_chunk(in)) return;
  fold_extra(tile);
  if (in.sinks != nullptr) fold_sinks(tile);
  const Normaliser<T, NV> normaliser(in, tile.total_sum);
  store_out(tile, normaliser);
  if (in.wants_lse()) store_lse(tile);
  if (in.wants_weights) store_weights(tile, normaliser);
}

// As few vectors of lanes as the rows need: short sequences pad little, and very short ones do
// without lanes of queries.
template <class T>
void run_attention_tile(const AttentionTile<T>& in, std::byte* workspace) noexcept {
  if (rows_are_few(in)) return run_few_rows(in, workspace);
  if (in.rows <= kLanes<T>) return run_tile<T, 1>(in, workspace);
  if (in.rows <= 2 * kLanes<T>) return run_tile<T, 2>(in, workspace);
  run_tile<T, 3>(in, workspace);
}

template <class T>
size_t attention_workspace_bytes(const AttentionTile<T>& largest) noexcept {
  Row<T> rows[kFewRows<T>];
  size_t few, many = 0;
  carve_rows(largest, rows, at_most(largest.rows, kFewRows<T>), nullptr, &few);
  if (largest.rows > 1) {
    carve_scratch(largest, round_up(largest.rows, kLanes<T>), nullptr, &many);
  }
  return few > many ? few : many;
}

template <class T>
size_t chunk_sums_size(const AttentionTile<T>& largest) noexcept {
  const size_t few = at_most(largest.rows, kFewRows<T>) *
                     (round_up(largest.v_head_dim, kLanes<T>) + 2 * kLanes<T>);
  const size_t many = round_up(largest.rows, kLanes<T>) * (largest.v_head_dim + 2);
  return round_up(few > many ? few : many, 64 / sizeof(T));
}

template <class T>
AttentionKernel<T> make_attention_kernel() {
  return {3 * kLanes<T>, run_attention_tile<T>, attention_workspace_bytes<T>, chunk_sums_size<T>};
}
