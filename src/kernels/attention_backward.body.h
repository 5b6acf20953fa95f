// The backward tile: attention_backward.h says what it computes, and in which order.
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
#include "kernels/attention_backward_tile.body.h"
#include "kernels/attention_backward_scores.body.h"
#include "kernels/attention_backward_rows.body.h"
// clang-format on

// The pending granules meet the keys, and then the rows of d_out and queries.
template <class T, int NV>
POLYHEAD_INLINE void drain_gradients(Backward<T, NV>& b) {
  constexpr size_t kSize = size_t{kGranule} * Backward<T, NV>::kWidth;
  const BackwardTile<T>& in = b.in;
  if (in.d_query.data != nullptr) drain_pending<NV>(b.d_query);
  const auto add = [&](const T* factors, const T* rows, T* sums, size_t stride) {
    for (int n = 0; n < b.num_pending; ++n) {
      const PendingKeys& keys = b.pending[n];
      add_rows<T>({factors + static_cast<size_t>(n) * kSize, kSize / kGranule, rows,
                   sums + keys.key * stride, stride, keys.first_row, keys.last_row},
                  keys.marks && !b.rows_finite);
    }
  };
  if (in.d_key != nullptr) {
    add(b.scratch.probs, b.scratch.d_out_rows, in.d_value, gradient_stride<T>(in.in.v_head_dim));
    add(b.scratch.d_scores, b.scratch.query_rows, in.d_key, gradient_stride<T>(in.in.head_dim));
  }
  b.num_pending = 0;
}

template <class T>
POLYHEAD_INLINE PendingKeys pending_keys(const BackwardTile<T>& in, size_t key, bool marks) {
  const TileBand& band = in.in.band;
  const ptrdiff_t first = static_cast<ptrdiff_t>(key) - band.last;
  const ptrdiff_t last = static_cast<ptrdiff_t>(key) + kGranule - band.first;
  const size_t rows = in.in.rows;
  return {key - in.key_begin, first > 0 ? at_most(static_cast<size_t>(first), rows) : 0,
          last > 0 ? at_most(static_cast<size_t>(last), rows) : 0, marks};
}

template <class T, int NV>
POLYHEAD_INLINE void take_gradients(Backward<T, NV>& b, size_t key) {
  constexpr size_t kSize = size_t{kGranule} * Backward<T, NV>::kWidth;
  const BackwardTile<T>& in = b.in;
  Granule<T> granule;
  if (!see_granule(b.tile, key, &granule)) return;
  if (b.num_pending == b.pending_limit) drain_gradients(b);
  const size_t slot = static_cast<size_t>(b.num_pending) * kSize;
  granule.probs = b.scratch.probs + slot;
  T* d_scores = b.scratch.d_scores + slot;
  T* d_bias = in.d_bias;
  if (d_bias != nullptr) d_bias += (key - in.key_begin) / kGranule * kSize;
  if (in.d_weights.data != nullptr) load_d_weights(b, key, granule.count);
  if (granule.hides_keys() || granule.mod != nullptr) {
    differentiate<true>(b, granule, {granule_index(in, key), d_scores, d_bias});
  } else {
    differentiate<false>(b, granule, {granule_index(in, key), d_scores, d_bias});
  }
  const bool hides = granule.hides_keys();
  b.pending[b.num_pending++] = pending_keys(in, key, hides || in.in.dropout.threshold > 0);
  if (in.d_query.data == nullptr) return;
  ValueSum<T>& sum = b.d_query;
  sum.pending[sum.num_pending++] = {d_scores, granule.rows[0], granule.count};
  sum.guarded |= hides && !rows_are_finite(in.in.key, granule.rows[0], granule.count, sum.dims);
}

// Adds the chunk's part to what the chunks before left; or 0, which turns -0.0 into 0.
template <class T, int NV>
__attribute__((noinline)) void store_d_query(Backward<T, NV>& b) {
  constexpr size_t kWidth = Backward<T, NV>::kWidth;
  const Strided<T>& to = b.in.d_query;
  const size_t dims = b.in.in.head_dim;
  T* chunk = b.scratch.d_query;
  if (b.in.adds_to_query) {
    const Strided<const T> before{to.data, to.row_stride, to.column_stride};
    for_each_column(rows_of(b.tile), before, dims, [&](size_t d, size_t lane, Vec<T> sum) {
      T* at = chunk + d * kWidth + lane;
      store(at, sum + load(at));
    });
  }
  store_transposed(b.tile, to, dims, [&](size_t d, size_t i) {
    return load(chunk + (d * NV + i) * kLanes<T>) + Vec<T>{};
  });
}

template <class T, int NV>
POLYHEAD_INLINE void begin_backward(Backward<T, NV>& b, std::byte* workspace) {
  size_t bytes;
  b.scratch = carve_backward(b.in.in, Backward<T, NV>::kWidth, workspace, &bytes);
  b.tile.scratch.query = b.scratch.query;
  b.tile.scratch.bias = b.scratch.bias;
  load_operands(b);
}

template <class T, int NV>
void run_backward(const BackwardTile<T>& in, std::byte* workspace) {
  const TileDraws<T, NV> draws(in.in.dropout);
  Backward<T, NV> b{in};
  b.tile.draws = &draws;
  begin_backward(b, workspace);
  load_delta(b, in.delta);
  b.d_query.out = b.scratch.d_query;
  b.d_query.dims = in.in.head_dim;
  b.d_query.value = in.in.key;
  b.pending_limit = in.in.head_dim + in.in.v_head_dim > 160 ? kMaxPending / 2 : kMaxPending;
  if (in.d_query.data != nullptr) {
    __builtin_memset(b.d_query.out, 0, in.in.head_dim * Backward<T, NV>::kWidth * sizeof(T));
  }
  if (in.d_key != nullptr) load_rows(b);
  const KeySpan seen = keys_seen_by(in.in);
  size_t key = in.key_begin < seen.begin ? seen.begin : in.key_begin;
  for (; key < at_most(seen.end, in.key_end); key += kGranule) take_gradients(b, key);
  drain_gradients(b);
  if (in.d_query.data != nullptr) store_d_query(b);
}

template <class T, int NV>
void run_delta(const BackwardTile<T>& in, const Strided<const T>& out, T* delta,
               std::byte* workspace) {
  constexpr size_t kWidth = Backward<T, NV>::kWidth;
  const TileDraws<T, NV> draws(in.in.dropout);
  Backward<T, NV> b{in};
  b.tile.draws = &draws;
  begin_backward(b, workspace);
  if (out.data != nullptr) {
    for_each_column(rows_of(b.tile), out, in.in.v_head_dim, [&](size_t d, size_t lane, Vec<T> o) {
      Vec<T>& sum = b.delta[lane / kLanes<T>];
      sum = fma(load(b.scratch.d_out + d * kWidth + lane), o, sum);
    });
  } else {
    load_delta(b, delta);
  }
  if (in.d_weights.data != nullptr) add_weights_to_delta(b);
  for (size_t r = 0; r < in.in.rows; ++r) delta[r] = b.delta[r / kLanes<T>][r % kLanes<T>];
}

// As few vectors of lanes as the rows need.
template <class T>
void run_backward_tile(const BackwardTile<T>& in, std::byte* workspace) noexcept {
  if (in.in.rows <= kLanes<T>) return run_backward<T, 1>(in, workspace);
  if (in.in.rows <= 2 * kLanes<T>) return run_backward<T, 2>(in, workspace);
  run_backward<T, 3>(in, workspace);
}

template <class T>
void run_delta_tile(const BackwardTile<T>& in, const Strided<const T>& out, T* delta,
                    std::byte* workspace) noexcept {
  if (in.in.rows <= kLanes<T>) return run_delta<T, 1>(in, out, delta, workspace);
  if (in.in.rows <= 2 * kLanes<T>) return run_delta<T, 2>(in, out, delta, workspace);
  run_delta<T, 3>(in, out, delta, workspace);
}

template <class T>
void sink_probs_of_tile(const BackwardTile<T>& in, T* probs) noexcept {
  for (size_t r = 0; r < in.in.rows; r += kLanes<T>) {
    T lse[kLanes<T>] = {}, rest[kLanes<T>] = {};
    for (size_t k = 0; k < at_most(in.in.rows - r, kLanes<T>); ++k) {
      const auto row = static_cast<ptrdiff_t>(r + k);
      const T x = in.lse[row * in.lse_stride];
      lse[k] = x == kMasked<T> ? -x : x;  // of a row that sees nothing, all is 0
      if (in.lse_rest != nullptr) rest[k] = in.lse_rest[row * in.lse_rest_stride];
    }
    const Vec<T> s = splat(*in.in.sinks) - load(lse) - load(rest);
    store(probs + r, exp2_flushed(s * splat(kLog2E<T>)));
  }
}

template <class T>
BackwardKernel<T> make_backward_kernel() {
  return {3 * kLanes<T>, run_backward_tile<T>, run_delta_tile<T>, sink_probs_of_tile<T>};
}
