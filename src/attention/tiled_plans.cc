#include "attention/tiled_plans.h"

#include <algorithm>
#include <cstdint>

#include "attention/attention_call.h"
#include "attention/tile_of_call.h"
#include "base/checked_math.h"
#include "kernels/attention_forward.h"

namespace polyhead {
namespace {

// The largest tile of a call, without the places of its rows.
template <class T>
AttentionTile<T> largest_tile(const AttentionCall& call, const AttentionKernel<T>& kernel) {
  AttentionTile<T> tile = tile_of<T>(call);
  tile.rows = std::min(kernel.max_rows, static_cast<size_t>(call.longest_q_len()));
  return tile;
}

template <class T>
void place_outputs(const AttentionCall& call, int64_t batch, int64_t head, int64_t row,
                   AttentionTile<T>* tile) {
  const auto& [out, lse, weights, rest] = call.outputs;
  tile->out = matrix_out<T>(out, batch, head, row);
  if (lse.defined()) {
    tile->lse = const_cast<T*>(offset<T>(lse, batch, head, row));
    tile->lse_stride = lse.stride(2);
  }
  if (rest.defined()) {
    tile->lse_rest = const_cast<T*>(offset<T>(rest, batch, head, row));
    tile->lse_rest_stride = rest.stride(2);
  }
  if (call.weights_mode == WeightsMode::kPerHead) {
    tile->weights = matrix_out<T>(weights, batch, head, row);
  } else if (call.weights_mode == WeightsMode::kAverage) {
    tile->weights = {const_cast<T*>(offset<T>(weights, batch, row, 0)), weights.stride(1),
                     weights.stride(2)};
  }
}

template <class T>
void run_rows(const AttentionCall& call, const AttentionKernel<T>& kernel, const Place& at,
              AttentionTile<T>* tile, std::byte* workspace) {
  const Sequence of = call.sequence(at.sequence);
  if (at.row >= of.q_len) return;
  const int64_t row = of.q_begin + at.row;
  TileMask masks[kMaxTileMasks];
  tile->rows = static_cast<size_t>(
      std::min<int64_t>(of.q_len - at.row, static_cast<int64_t>(kernel.max_rows)));
  place_masks(call, at, of, masks, tile);
  place_dropout(call, at, tile);
  TileScoreMod mod;
  place_score_mod(call, at, &mod, tile);
  tile->query = matrix<T>(call.query, of.batch, at.head, row);
  place_keys(call, at, of, tile);
  place_outputs(call, of.batch, at.head, row, tile);
  kernel.run(*tile, workspace);
}

// Tasks: (batch, head, query tile), so that the keys and values of a head stay in cache from tile
// to tile; the last tile first, since causal ones grow longer with the row.
template <class T>
void run_by_head(const AttentionCall& call) {
  const AttentionKernel<T> kernel = attention_kernel<T>(active_isa());
  const AttentionTile<T> shape = largest_tile(call, kernel);
  const Tiling tiling(call, kernel.max_rows);
  const bool far = keys_are_far(call);
  const auto run = [&](size_t n, std::byte* workspace) {
    const TileTask task = tiling.task(static_cast<int64_t>(n), call.num_heads());
    const int64_t tile_index = task.tiles - 1 - task.tile;
    AttentionTile<T> tile = shape;
    tile.keys_are_far = task.tiles > 1 ? task.tile == 0 : far;
    run_rows(call, kernel, {task.sequence, task.head, tile_index * tiling.rows}, &tile, workspace);
  };
  run_tasks(call, static_cast<size_t>(tiling.places() * call.num_heads()),
            kernel.workspace_bytes(shape), run);
}

// Masks with a larger sum by lanes are met anew by each head: kept, they would leave L2.
constexpr size_t kMostKeptBytes = size_t{2} << 20;

// So many heads to a task that each thread gets several tasks; the average needs all.
int64_t heads_per_task(const AttentionCall& call, int64_t places) {
  if (call.weights_mode == WeightsMode::kAverage) return call.num_heads();
  const int64_t wanted = 4 * num_threads() / places + 1;
  return (call.num_heads() + wanted - 1) / wanted;
}

// Tasks: (batch, some heads, query tile), head after head with the same workspace.
template <class T>
void run_head_sequences(const AttentionCall& call) {
  const AttentionKernel<T> kernel = attention_kernel<T>(active_isa());
  const Tiling tiling(call, kernel.max_rows);
  const int64_t heads = heads_per_task(call, tiling.places());
  const int64_t groups = (call.num_heads() + heads - 1) / heads;
  AttentionTile<T> shape = largest_tile(call, kernel);
  shape.keys_are_far = call.longest_q_len() > tiling.rows || keys_are_far(call);
  shape.heads.average = call.weights_mode == WeightsMode::kAverage;
  shape.heads.keep_masks =
      heads_share_masks(call) && shape.kv_len * tiling.lanes * sizeof(T) <= kMostKeptBytes;
  const auto run = [&](size_t n, std::byte* workspace) {
    const TileTask task = tiling.task(static_cast<int64_t>(n), groups);
    const int64_t row = (task.tiles - 1 - task.tile) * tiling.rows;
    const int64_t begin = task.head * heads, end = std::min(begin + heads, call.num_heads());
    AttentionTile<T> tile = shape;
    tile.heads.count = static_cast<size_t>(end - begin);
    for (int64_t head = begin; head < end; ++head) {
      tile.heads.index = static_cast<size_t>(head - begin);
      run_rows(call, kernel, {task.sequence, head, row}, &tile, workspace);
    }
  };
  run_tasks(call, static_cast<size_t>(tiling.places() * groups), kernel.workspace_bytes(shape),
            run);
}

void run_tiled(const AttentionCall& call, void (*run_float)(const AttentionCall&),
               void (*run_double)(const AttentionCall&)) {
  if (call.batch() * call.num_heads() * call.q_len() == 0) return;
  call.query.dtype() == DType::kFloat32 ? run_float(call) : run_double(call);
}

}  // namespace

bool heads_share_masks(const AttentionCall& call) {
  if (call.score_mod.forward != nullptr) return false;
  bool by_query = false;
  for (const Mask& mask : call.masks) {
    if (mask.kind() == Mask::Kind::kAlibi) return false;
    by_query |= mask.kind() == Mask::Kind::kSegments;
    if (!is_tensor_mask(mask)) continue;
    const MaskStrides strides = mask_strides(mask.tensor());
    if (strides.head != 0) return false;
    by_query |= strides.query != 0;
  }
  return by_query && call.num_heads() > 1;
}

bool tiled_supports(const AttentionCall& call) {
  const auto takes_place = [](const Mask& mask) {
    return is_tensor_mask(mask) || mask.kind() == Mask::Kind::kAlibi ||
           mask.kind() == Mask::Kind::kSegments;
  };
  return std::count_if(call.masks.begin(), call.masks.end(), takes_place) <= kMaxTileMasks;
}

void run_tile_per_head(const AttentionCall& call) {
  run_tiled(call, run_by_head<float>, run_by_head<double>);
}

void run_tile_all_heads(const AttentionCall& call) {
  run_tiled(call, run_head_sequences<float>, run_head_sequences<double>);
}

}  // namespace polyhead
