// From a call to the tiles of a kernel: where the rows of a head and their masks lie.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "attention/attention_call.h"
#include "base/checked_math.h"
#include "kernels/attention_forward.h"

namespace polyhead {

template <class T>
const T* offset(const ConstTensorView& view, int64_t a, int64_t b, int64_t c) {
  return static_cast<const T*>(view.data()) + a * view.stride(0) + b * view.stride(1) +
         c * view.stride(2);
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
  tile.kv_len = static_cast<size_t>(call.kv_len());
  tile.num_extra = static_cast<size_t>(call.num_extra());
  tile.head_dim = static_cast<size_t>(call.head_dim());
  tile.v_head_dim = static_cast<size_t>(call.v_head_dim());
  tile.scale = static_cast<T>(call.scale);
  tile.empty_rows_nan = call.empty_rows == EmptyRow::kNan;
  tile.wants_weights = call.weights_mode != WeightsMode::kNone;
  tile.dropout = {
      .threshold = call.dropout.threshold(), .seed = call.dropout.seed, .call = call.dropout.call};
  tile.kept_scale = static_cast<T>(call.dropout.scale());
  return tile;
}

// The first row of a tile.
struct Place {
  int64_t batch, head, row;
};

// Points the tile at the masks of its rows of one head. `masks` has room for the call's.
template <class T>
void place_masks(const AttentionCall& call, const Place& at, TileMask* masks,
                 AttentionTile<T>* tile) {
  tile->causal_limit = kNotCausal;
  tile->num_masks = 0;
  for (const Mask& mask : call.masks) {
    if (mask.kind() == Mask::Kind::kCausal) {
      const ptrdiff_t limit = at.row + causal_offset(mask.align(), call.q_len(), call.kv_len());
      tile->causal_limit = std::min(tile->causal_limit, limit);
      continue;
    }
    const MaskStrides s = mask_strides(mask.tensor());
    const int64_t first = at.batch * s.batch + at.head * s.head + at.row * s.query;
    const auto bytes = first * static_cast<int64_t>(dtype_bytes(mask.tensor().dtype()));
    masks[tile->num_masks++] = {static_cast<const std::byte*>(mask.tensor().data()) + bytes,
                                mask_element(mask), mask.factor(), s.query, s.key};
  }
  tile->masks = masks;
}

// Tells the tile which queries of which head draw.
template <class T>
void place_dropout(const AttentionCall& call, const Place& at, AttentionTile<T>* tile) {
  tile->dropout.head = static_cast<uint32_t>(at.batch * call.num_heads() + at.head);
  tile->dropout.first_query = static_cast<uint32_t>(at.row);
}

// The tiles of a call, all of one size but the last of each head.
struct Tiling {
  int64_t rows, tiles;
  size_t lanes;  // of the widest: no more vectors than its rows need

  Tiling(const AttentionCall& call, size_t max_rows)
      : rows(static_cast<int64_t>(max_rows)), tiles((call.q_len() + rows - 1) / rows) {
    lanes = std::min(max_rows, round_up(static_cast<size_t>(call.q_len()), max_rows / 3));
  }
};

// Of the two products, forward.
double attention_flops(const AttentionCall& call);

}  // namespace polyhead
