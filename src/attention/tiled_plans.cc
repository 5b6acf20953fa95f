#include "attention/tiled_plans.h"

#include <algorithm>
#include <cstdint>

#include "attention/attention_call.h"
#include "base/checked_math.h"
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
  tile->max_rows = std::max(tile->max_rows, tile->rows);
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
  }
  kernel.run(*tile, workspace);
}

double attention_flops(const AttentionCall& call) {
  return 2.0 * static_cast<double>(call.batch() * call.num_heads()) *
         static_cast<double>(call.q_len()) * static_cast<double>(call.kv_len()) *
         static_cast<double>(call.head_dim() + call.v_head_dim());
}

// Tasks: (batch, head, query tile), so that the keys and values of a head stay in cache from tile
// to tile; the last tile first, since causal ones grow longer with the row.
template <class T>
void run_by_head(const AttentionCall& call) {
  const AttentionKernel<T> kernel = attention_kernel<T>(active_isa());
  const AttentionTile<T> shape = tile_of<T>(call);
  const auto rows = static_cast<int64_t>(kernel.max_rows);
  const int64_t heads = call.num_heads(), tiles = (call.q_len() + rows - 1) / rows;
  parallel_tasks(
      static_cast<size_t>(call.batch() * heads * tiles), attention_flops(call),
      attention_workspace_bytes(shape, kernel.max_rows), [&](size_t task, std::byte* workspace) {
        const auto n = static_cast<int64_t>(task);
        const int64_t row = (tiles - 1 - n % tiles) * rows;
        AttentionTile<T> tile = shape;
        run_rows(call, kernel, {n / tiles / heads, n / tiles % heads, row}, &tile, workspace);
      });
}

// Masks of more columns than this are met anew by each head: kept, they would leave the cache.
constexpr size_t kMostKeptBytes = size_t{2} << 20;

// What one query tile keeps from head to head, behind the workspace of its task.
template <class T>
struct Keeping {
  size_t sum_bytes = 0, bias_bytes = 0, seen_bytes = 0;

  Keeping(const AttentionCall& call, const AttentionTile<T>& shape, size_t max_rows) {
    const size_t columns = attention_columns_bytes(shape, max_rows);
    if (call.weights_mode == WeightsMode::kAverage) sum_bytes = columns;
    if (!heads_share_masks(call) || columns > kMostKeptBytes) return;
    bias_bytes = columns;
    seen_bytes = round_up(shape.kv_len, kAlignment);
  }
  size_t bytes() const { return sum_bytes + bias_bytes + seen_bytes; }

  void place(std::byte* at, bool first_head, AttentionTile<T>* tile) const {
    tile->average.sum = sum_bytes > 0 ? reinterpret_cast<T*>(at) : nullptr;
    if (bias_bytes == 0) return;
    auto* seen = reinterpret_cast<uint8_t*>(at + sum_bytes + bias_bytes);
    tile->kept = {reinterpret_cast<T*>(at + sum_bytes), seen, !first_head};
  }
};

// Heads and query rows of one batch item.
struct Part {
  int64_t batch, head_begin, head_end, row_begin, row_end;
};

template <class T>
void run_part(const AttentionCall& call, const AttentionKernel<T>& kernel, const Part& part,
              const AttentionTile<T>& shape, std::byte* workspace) {
  const Keeping<T> keeping(call, shape, kernel.max_rows);
  const auto tile_rows = static_cast<int64_t>(kernel.max_rows);
  AttentionTile<T> tile = shape;
  AverageStep<T>& step = tile.average;
  step.num_heads = static_cast<size_t>(call.num_heads());
  for (int64_t head = part.head_begin; head < part.head_end; ++head) {
    step.first_head = head == part.head_begin;
    step.last_head = head + 1 == part.head_end;
    std::byte* kept = workspace + attention_workspace_bytes(shape, kernel.max_rows);
    for (int64_t row = part.row_begin; row < part.row_end; row += tile_rows) {
      tile.keys_are_far = row == part.row_begin;
      keeping.place(kept, step.first_head, &tile);
      run_rows(call, kernel, {part.batch, head, row}, &tile, workspace);
      step.left = step.last_head ? nullptr : step.sum;
      step.left_by_first = step.first_head;
      kept += keeping.bytes();
    }
  }
}

// How a call is cut into parts. The keys and values of a head, once fetched, serve all tiles of a
// part, and what is kept serves all its heads; but each thread shall get several parts. The average
// needs all heads.
struct Cut {
  int64_t rows, row_parts, heads, head_parts;

  Cut(const AttentionCall& call, int64_t tile_rows) {
    const int64_t threads = num_threads();
    const int64_t tiles = call.batch() * ((call.q_len() + tile_rows - 1) / tile_rows);
    rows = tile_rows * std::clamp<int64_t>(tiles / (8 * threads), 1, 4);
    row_parts = (call.q_len() + rows - 1) / rows;
    const int64_t wanted = 4 * threads / (call.batch() * row_parts) + 1;
    const bool together = call.weights_mode == WeightsMode::kAverage;
    heads = together ? call.num_heads() : (call.num_heads() + wanted - 1) / wanted;
    head_parts = (call.num_heads() + heads - 1) / heads;
  }

  // The rows at the end first: causal ones are longer there.
  Part part(const AttentionCall& call, int64_t n) const {
    const int64_t row = (row_parts - 1 - n % row_parts) * rows;
    const int64_t head = n / row_parts % head_parts * heads;
    return {n / row_parts / head_parts, head, std::min(head + heads, call.num_heads()), row,
            std::min(row + rows, call.q_len())};
  }
};

template <class T>
void run_all_heads(const AttentionCall& call) {
  const AttentionKernel<T> kernel = attention_kernel<T>(active_isa());
  const AttentionTile<T> shape = tile_of<T>(call);
  const auto tile_rows = static_cast<int64_t>(kernel.max_rows);
  const Cut cut(call, tile_rows);
  const size_t bytes =
      attention_workspace_bytes(shape, kernel.max_rows) +
      static_cast<size_t>(cut.rows / tile_rows) * Keeping<T>(call, shape, kernel.max_rows).bytes();
  parallel_tasks(static_cast<size_t>(call.batch() * cut.row_parts * cut.head_parts),
                 attention_flops(call), bytes, [&](size_t n, std::byte* workspace) {
                   const Part part = cut.part(call, static_cast<int64_t>(n));
                   run_part(call, kernel, part, shape, workspace);
                 });
}

void run_tiled(const AttentionCall& call, void (*run_float)(const AttentionCall&),
               void (*run_double)(const AttentionCall&)) {
  if (call.batch() * call.num_heads() * call.q_len() == 0) return;
  call.query.dtype() == DType::kFloat32 ? run_float(call) : run_double(call);
}

}  // namespace

bool heads_share_masks(const AttentionCall& call) {
  bool by_query = false;
  for (const Mask& mask : call.masks) {
    if (mask.kind() == Mask::Kind::kCausal) continue;
    const MaskStrides strides = mask_strides(mask.tensor());
    if (strides.head != 0) return false;
    by_query |= strides.query != 0;
  }
  return by_query && call.num_heads() > 1;
}

bool tiled_supports(const AttentionCall& call) { return call.masks.size() <= kMaxTileMasks; }

void run_tile_per_head(const AttentionCall& call) {
  run_tiled(call, run_by_head<float>, run_by_head<double>);
}

void run_tile_all_heads(const AttentionCall& call) {
  run_tiled(call, run_all_heads<float>, run_all_heads<double>);
}

}  // namespace polyhead
