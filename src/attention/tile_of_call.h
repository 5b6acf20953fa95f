// From a call to the tiles of a kernel: where the rows of a head and their masks lie.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "attention/attention_call.h"
#include "attention/score_mod.h"
#include "base/checked_math.h"
#include "base/parallel_tasks.h"
#include "kernels/attention_forward.h"

namespace polyhead {

template <class T>
const T* offset(const ConstTensorView& view, int64_t a, int64_t b, int64_t c) {
  return static_cast<const T*>(view.data()) + a * view.stride(0) + b * view.stride(1) +
         c * view.stride(2);
}

template <class T>
const T* offset_in(const ConstTensorView& vector, int64_t n) {
  return static_cast<const T*>(vector.data()) + n * vector.stride(0);
}

template <class T>
Strided<const T> matrix(const ConstTensorView& view, int64_t batch, int64_t head, int64_t row) {
  return {offset<T>(view, batch, head, row), view.stride(2), view.stride(3)};
}

template <class T>
Strided<T> matrix_out(const TensorView& view, int64_t batch, int64_t head, int64_t row) {
  return {const_cast<T*>(offset<T>(view, batch, head, row)), view.stride(2), view.stride(3)};
}

TileMask::Element mask_element(const Mask& mask);

// The part of a tile that is the same for all tiles of a call.
template <class T>
AttentionTile<T> tile_of(const AttentionCall& call) {
  AttentionTile<T> tile;
  tile.kv_len = static_cast<size_t>(call.longest_kv_len());
  tile.num_extra = static_cast<size_t>(call.num_extra());
  tile.head_dim = static_cast<size_t>(call.head_dim());
  tile.v_head_dim = static_cast<size_t>(call.v_head_dim());
  tile.scale = static_cast<T>(call.scale);
  tile.softcap = static_cast<T>(call.softcap);
  tile.inverse_softcap = static_cast<T>(call.softcap > 0 ? 1 / call.softcap : 0);
  tile.empty_rows_nan = call.empty_rows == EmptyRow::kNan;
  tile.wants_weights = call.weights_mode != WeightsMode::kNone;
  tile.dropout = {
      .threshold = call.dropout.threshold(), .seed = call.dropout.seed, .call = call.dropout.call};
  tile.kept_scale = static_cast<T>(call.dropout.scale());
  return tile;
}

// The first row of a tile: of a head of a batch item.
struct Place {
  int64_t sequence, head, row;
};

// Points the tile at the keys and values of a sequence.
template <class T>
void place_keys(const AttentionCall& call, const Place& at, const Sequence& of,
                AttentionTile<T>* tile) {
  const int64_t head = call.kv_head(at.head);
  const bool paged = !call.cached.empty();
  const int64_t batch = paged ? 0 : of.batch;
  tile->key = matrix<T>(call.key, batch, head, of.k_begin);
  tile->value = matrix<T>(call.value, batch, head, of.k_begin);
  if (paged) {
    const CachedSequence& from = call.cached[static_cast<size_t>(at.sequence)];
    tile->pages = {.pages = from.pages,
                   .page_len = static_cast<size_t>(call.page_len()),
                   .first_page = static_cast<size_t>(from.first_page),
                   .key_step = call.key.stride(0),
                   .value_step = call.value.stride(0)};
  }
  if (call.num_extra() == 0) return;
  const auto &key = call.extra_key, &value = call.extra_value;
  tile->extra_key = {offset<T>(key, head, 0, 0), key.stride(1), key.stride(2)};
  tile->extra_value = {offset<T>(value, head, 0, 0), value.stride(1), value.stride(2)};
}

// An ALiBi mask of the rows from `at` on.
TileMask distances(const Mask& mask, const Place& at, const Sequence& of);

// A mask of segments of so many rows from `at` on.
TileMask segments(const Mask& mask, const Place& at, const Sequence& of, size_t rows);

// Says which keys the rows of a tile may see, and points it at the masks of these. The number of
// rows is there already. `masks` has room
// for the call's.
template <class T>
void place_masks(const AttentionCall& call, const Place& at, const Sequence& of, TileMask* masks,
                 AttentionTile<T>* tile) {
  const KeyBand band = call.band(of);
  tile->band = {band.first + at.row, band.last + at.row, static_cast<size_t>(band.end)};
  tile->kv_len = static_cast<size_t>(of.kv_len);
  tile->sinks = call.sinks.defined() ? offset_in<T>(call.sinks, at.head) : nullptr;
  tile->sink_stride = call.sinks.defined() ? call.sinks.stride(0) : 0;
  tile->num_masks = 0;
  for (const Mask& mask : call.masks) {
    if (mask.kind() == Mask::Kind::kAlibi) {
      masks[tile->num_masks++] = distances(mask, at, of);
      continue;
    }
    if (mask.kind() == Mask::Kind::kSegments) {
      masks[tile->num_masks++] = segments(mask, at, of, tile->rows);
      continue;
    }
    if (!is_tensor_mask(mask)) continue;
    const MaskStrides s = mask_strides(mask.tensor());
    const int64_t first = of.batch * s.batch + at.head * s.head + (of.q_begin + at.row) * s.query +
                          of.k_begin * s.key;
    const auto bytes = first * static_cast<int64_t>(dtype_bytes(mask.tensor().dtype()));
    masks[tile->num_masks++] = {.data = static_cast<const std::byte*>(mask.tensor().data()) + bytes,
                                .element = mask_element(mask),
                                .factor = mask.factor(),
                                .query_stride = s.query,
                                .key_stride = s.key,
                                .position = 0,
                                .row_ids = nullptr,
                                .least_id = 0,
                                .most_id = 0};
  }
  tile->masks = masks;
}

// Tells the tile which queries of which head draw.
template <class T>
void place_dropout(const AttentionCall& call, const Place& at, AttentionTile<T>* tile) {
  const int64_t head = (call.first_sequence + at.sequence) * call.num_heads() + at.head;
  tile->dropout.head = static_cast<uint32_t>(head);
  tile->dropout.first_query = static_cast<uint32_t>(at.row);
}

// One tile of a head of a batch item, of `tiles`; it may be one past the last row.
struct TileTask {
  int64_t sequence, head, tile, tiles;
};

// Tells the tile what else changes its scores: `mod` is the place for it.
template <class T>
void place_score_mod(const AttentionCall& call, const Place& at, TileScoreMod* mod,
                     AttentionTile<T>* tile) {
  if (call.score_mod.forward == nullptr) return;
  *mod = tile_score_mod(call, at.sequence, at.head, call.first_position(at.sequence) + at.row);
  tile->mod = mod;
}

// The tiles of a call, all of one size but the last of each head.
class Tiling {
 public:
  Tiling(const AttentionCall& call, size_t max_rows)
      : rows(static_cast<int64_t>(max_rows)),
        lanes(std::min(max_rows, round_up(static_cast<size_t>(call.longest_q_len()),
                                          std::max<size_t>(max_rows / 3, 1)))),
        call_(call) {}

  const int64_t rows;
  const size_t lanes;  // of the widest: no more vectors than its rows need

  int64_t tiles_of(int64_t q_len) const { return (q_len + rows - 1) / rows; }
  // Places for tiles of one head, of all batch items. A sequence of a packed call may have one more
  // than its rows take: so the first place of each is known without a table.
  int64_t places() const;
  // Task n of places() * heads: the tiles of a head follow each other, and the heads of a sequence.
  TileTask task(int64_t n, int64_t heads) const {
    if (call_.packed()) return packed_task(n, heads);
    return {n / tiles_ / heads, n / tiles_ % heads, n % tiles_, tiles_};
  }

 private:
  TileTask packed_task(int64_t n, int64_t heads) const;
  int64_t first_place(int64_t sequence) const;  // of a packed call

  const AttentionCall& call_;
  const int64_t tiles_ = tiles_of(call_.q_len());  // of one head of a call that is not packed
};

// Whether keys and values are too many to be in a cache still when the same call comes again.
bool keys_are_far(const AttentionCall& call);

// Of the two products, forward.
double attention_flops(const AttentionCall& call);

// parallel_tasks of a call.
template <class F>
void run_tasks(const AttentionCall& call, size_t count, size_t workspace_bytes, const F& body) {
  const double flops = attention_flops(call);
  call.only_reserves ? reserve_task_memory(count, flops, workspace_bytes)
                     : parallel_tasks(count, flops, workspace_bytes, body);
}

}  // namespace polyhead
