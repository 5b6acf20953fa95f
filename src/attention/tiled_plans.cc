#include "attention/tiled_plans.h"

#include <algorithm>
#include <cstdint>

#include "attention/attention_call.h"
#include "base/parallel_tasks.h"
#include "kernels/attention_forward.h"

namespace polyhead {
namespace {

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

TileMask::Element mask_element(const Mask& mask) {
  if (mask.kind() == Mask::Kind::kBoolean) {
    return mask.sense() == MaskSense::kExcluded ? TileMask::Element::kHiddenIfTrue
                                                : TileMask::Element::kHiddenIfFalse;
  }
  switch (mask.tensor().dtype()) {
    case DType::kFloat32:
      return TileMask::Element::kFloat32;
    case DType::kFloat64:
      return TileMask::Element::kFloat64;
    case DType::kInt32:
      return TileMask::Element::kInt32;
    case DType::kInt64:
      return TileMask::Element::kInt64;
    default:
      return TileMask::Element::kBool;
  }
}

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
  if (call.weights_mode != WeightsMode::kNone) {
    tile.weights.data = static_cast<T*>(call.outputs.weights.data());
  }
  if (call.weights_mode == WeightsMode::kAverage) {
    tile.heads_to_average = static_cast<size_t>(call.num_heads());
  }
  return tile;
}

// The first row of a tile.
struct Place {
  int64_t batch, head, row;
};

// Points the tile at its rows of one head. `masks` has room for the call's.
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

template <class T>
void run_rows(const AttentionCall& call, const AttentionKernel<T>& kernel, const Place& at,
              AttentionTile<T>* tile, std::byte* workspace) {
  const auto [batch, head, row] = at;
  const int64_t kv_head = call.kv_head(head);
  TileMask masks[kMaxTileMasks];
  place_masks(call, at, masks, tile);
  tile->rows = static_cast<size_t>(
      std::min<int64_t>(call.q_len() - row, static_cast<int64_t>(kernel.max_rows)));
  tile->query = matrix<T>(call.query, batch, head, row);
  tile->key = matrix<T>(call.key, batch, kv_head, 0);
  tile->value = matrix<T>(call.value, batch, kv_head, 0);
  tile->out = matrix_out<T>(call.outputs.out, batch, head, row);
  if (call.num_extra() > 0) {
    const auto &key = call.extra_key, &value = call.extra_value;
    tile->extra_key = {offset<T>(key, kv_head, 0, 0), key.stride(1), key.stride(2)};
    tile->extra_value = {offset<T>(value, kv_head, 0, 0), value.stride(1), value.stride(2)};
  }
  const TensorView &lse = call.outputs.lse, &weights = call.outputs.weights;
  if (lse.defined()) {
    tile->lse = const_cast<T*>(offset<T>(lse, batch, head, row));
    tile->lse_stride = lse.stride(2);
  }
  if (call.weights_mode == WeightsMode::kPerHead) {
    tile->weights = matrix_out<T>(weights, batch, head, row);
  } else if (call.weights_mode == WeightsMode::kAverage) {
    tile->weights = {const_cast<T*>(offset<T>(weights, batch, row, 0)), weights.stride(1),
                     weights.stride(2)};
    tile->head = static_cast<size_t>(head);
  }
  kernel.run(*tile, workspace);
}

// Tasks: (batch, heads in steps of heads_per_task, query tile), so that the keys and values of a
// head stay in cache from tile to tile; the last tile first, since causal ones grow longer with the
// row.
template <class T>
void run_tiled(const AttentionCall& call, int64_t heads_per_task) {
  if (call.batch() * call.num_heads() * call.q_len() == 0) return;
  const AttentionKernel<T> kernel = attention_kernel<T>(active_isa());
  const AttentionTile<T> shape = tile_of<T>(call);
  const auto rows = static_cast<int64_t>(kernel.max_rows);
  const int64_t groups = call.num_heads() / heads_per_task;
  const int64_t tiles = (call.q_len() + rows - 1) / rows;
  const double flops = 2.0 * static_cast<double>(call.batch() * call.num_heads()) *
                       static_cast<double>(call.q_len()) * static_cast<double>(call.kv_len()) *
                       static_cast<double>(call.head_dim() + call.v_head_dim());
  parallel_tasks(
      static_cast<size_t>(tiles * call.batch() * groups), flops,
      attention_workspace_bytes(shape, kernel.max_rows), [&](size_t task, std::byte* workspace) {
        const auto n = static_cast<int64_t>(task);
        const int64_t group = n / tiles % groups, batch = n / tiles / groups;
        const int64_t row = (tiles - 1 - n % tiles) * rows;
        AttentionTile<T> tile = shape;
        for (int64_t h = 0; h < heads_per_task; ++h) {
          run_rows(call, kernel, {batch, group * heads_per_task + h, row}, &tile, workspace);
        }
      });
}

void run_either(const AttentionCall& call, int64_t heads_per_task) {
  if (call.query.dtype() == DType::kFloat32) {
    run_tiled<float>(call, heads_per_task);
  } else {
    run_tiled<double>(call, heads_per_task);
  }
}

}  // namespace

bool tiled_supports(const AttentionCall& call) { return call.masks.size() <= kMaxTileMasks; }

void run_tile_per_head(const AttentionCall& call) { run_either(call, 1); }

void run_tile_all_heads(const AttentionCall& call) { run_either(call, call.num_heads()); }

}  // namespace polyhead
