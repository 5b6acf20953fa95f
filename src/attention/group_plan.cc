#include "attention/group_plan.h"

#include <algorithm>
#include <cstdint>

#include "attention/tile_of_call.h"
#include "base/checked_math.h"
#include "kernels/attention_forward.h"

namespace polyhead {
namespace {

// With more, no tile mixes heads.
constexpr int64_t kFewQueries = 16;

// Parts of the keys that tasks of their own take: one, or where heads are fewer than threads, the
// chunks that have their own sums in any case.
int64_t parts_of_keys(const AttentionCall& call) {
  if (call.num_sequences() * call.num_kv_heads() >= num_threads()) return 1;
  constexpr auto kChunk = static_cast<int64_t>(kChunkKeys);
  return std::max<int64_t>((call.longest_kv_len() + kChunk - 1) / kChunk, 1);
}

// Heads that share a tile: all that read the same keys, unless that leaves threads without a task
// or does not fit.
int64_t heads_of_tile(const AttentionCall& call, size_t max_rows) {
  const int64_t group = call.num_heads() / call.num_kv_heads();
  const int64_t tasks = call.num_sequences() * call.num_kv_heads() * parts_of_keys(call);
  const int64_t wanted = (num_threads() + tasks - 1) / std::max<int64_t>(tasks, 1);
  const int64_t heads = std::max<int64_t>(group / wanted, 1);
  return std::min(heads, static_cast<int64_t>(max_rows));
}

template <class T>
struct Rows {
  T *query, *out, *lse, *lse_rest;  // [rows, D], [rows, Dv], [rows], [rows]
};

// A view [B, H, L, ..] at a row of the tile: row r is head r % group of query r / group.
template <class T>
T* row_at(const ConstTensorView& view, const Sequence& of, const Place& at, size_t group,
          size_t r) {
  const auto head = static_cast<int64_t>(r % group), query = static_cast<int64_t>(r / group);
  return const_cast<T*>(offset<T>(view, of.batch, at.head + head, of.q_begin + at.row + query));
}

template <class T>
void copy(const T* from, int64_t from_stride, T* to, int64_t to_stride, size_t count) {
  for (size_t n = 0; n < count; ++n, from += from_stride, to += to_stride) *to = *from;
}

template <class T>
class GroupPlan {
 public:
  explicit GroupPlan(const AttentionCall& call)
      : call_(call),
        kernel_(attention_kernel<T>(active_isa())),
        heads_(heads_of_tile(call, kernel_.max_rows)),
        parts_((call.num_heads() / call.num_kv_heads() + heads_ - 1) / heads_),
        chunks_(parts_of_keys(call)),
        tiling_(call, kernel_.max_rows / static_cast<size_t>(heads_)),
        shape_(tile_of<T>(call)) {
    shape_.rows = static_cast<size_t>(heads_ * std::min(call.longest_q_len(), tiling_.rows));
    shape_.keys_are_far = keys_are_far(call);
  }

  void run() const {
    const auto tiles = static_cast<size_t>(tiling_.places() * call_.num_kv_heads() * parts_);
    if (chunks_ == 1) {
      return run_tasks(tiles, [this](size_t n, std::byte* memory) { run_task(n, {}, memory); });
    }
    using Use = typename ChunkSums<T>::Use;
    const auto chunks = static_cast<size_t>(chunks_);
    const size_t size = kernel_.chunk_size(shape_);
    WorkspaceLease lease;
    T* sums = reinterpret_cast<T*>(lease.reserve(tiles * chunks * size * sizeof(T)));
    run_tasks(tiles * chunks, [&](size_t n, std::byte* memory) {
      const size_t tile = n / chunks;
      run_task(tile, {Use::kLeave, n % chunks, size, sums + tile * chunks * size}, memory);
    });
    run_tasks(tiles, [&](size_t n, std::byte* memory) {
      run_task(n, {Use::kTake, 0, size, sums + n * chunks * size}, memory);
    });
  }

 private:
  template <class Body>
  void run_tasks(size_t count, const Body& body) const {
    polyhead::run_tasks(call_, count, copies_bytes() + kernel_.workspace_bytes(shape_), body);
  }

  size_t copies_bytes() const {
    return round_up(shape_.rows * (shape_.head_dim + shape_.v_head_dim + 2) * sizeof(T), 64);
  }

  void run_task(size_t n, const ChunkSums<T>& chunks, std::byte* memory) const {
    const int64_t parts = call_.num_kv_heads() * parts_;
    const TileTask task = tiling_.task(static_cast<int64_t>(n), parts);
    const int64_t group = call_.num_heads() / call_.num_kv_heads();
    const int64_t first = task.head % parts_ * heads_;  // of the group
    const Place at{task.sequence, task.head / parts_ * group + first, task.tile * tiling_.rows};
    const Sequence of = call_.sequence(at.sequence);
    if (at.row >= of.q_len) return;
    AttentionTile<T> tile = shape_;
    tile.chunks = chunks;
    if (task.tiles > 1) tile.keys_are_far = task.tile == 0;  // the others find them in a cache
    tile.group = static_cast<size_t>(std::min(heads_, group - first));
    tile.rows = tile.group * static_cast<size_t>(std::min(of.q_len - at.row, tiling_.rows));
    place_masks(call_, at, of, nullptr, &tile);
    place_keys(call_, at, of, &tile);
    const Rows<T> rows = place_rows(memory, &tile);
    for (size_t r = 0; r < tile.rows; ++r) {
      copy<T>(row_at<T>(call_.query, of, at, tile.group, r), call_.query.stride(3),
              rows.query + r * tile.head_dim, 1, tile.head_dim);
    }
    kernel_.run(tile, memory + copies_bytes());
    if (chunks.use != ChunkSums<T>::Use::kLeave) store_rows(of, at, tile, rows);
  }

  Rows<T> place_rows(std::byte* memory, AttentionTile<T>* tile) const {
    T* query = reinterpret_cast<T*>(memory);
    T* out = query + tile->rows * tile->head_dim;
    T* lse = out + tile->rows * tile->v_head_dim;
    const Rows<T> rows{query, out, lse, lse + tile->rows};
    tile->query = {query, static_cast<ptrdiff_t>(tile->head_dim), 1};
    tile->out = {out, static_cast<ptrdiff_t>(tile->v_head_dim), 1};
    tile->lse = call_.outputs.lse.defined() ? rows.lse : nullptr;
    tile->lse_rest = call_.outputs.lse_rest.defined() ? rows.lse_rest : nullptr;
    tile->lse_stride = tile->lse_rest_stride = 1;
    return rows;
  }

  void store_rows(const Sequence& of, const Place& at, const AttentionTile<T>& tile,
                  const Rows<T>& rows) const {
    const TensorView &out = call_.outputs.out, &lse = call_.outputs.lse,
                     &rest = call_.outputs.lse_rest;
    for (size_t r = 0; r < tile.rows; ++r) {
      copy<T>(rows.out + r * tile.v_head_dim, 1, row_at<T>(out, of, at, tile.group, r),
              out.stride(3), tile.v_head_dim);
      if (lse.defined()) *row_at<T>(lse, of, at, tile.group, r) = rows.lse[r];
      if (rest.defined()) *row_at<T>(rest, of, at, tile.group, r) = rows.lse_rest[r];
    }
  }

  const AttentionCall& call_;
  const AttentionKernel<T> kernel_;
  const int64_t heads_, parts_;  // heads in a tile, tiles that the heads of a group take
  const int64_t chunks_;         // parts of their keys; 1: all in one task
  const Tiling tiling_;
  AttentionTile<T> shape_;
};

}  // namespace

bool group_supports(const AttentionCall& call) {
  if (call.num_kv_heads() == 0) return false;
  const auto kv_len = static_cast<size_t>(call.longest_kv_len());
  if (call.num_heads() == call.num_kv_heads() && kv_len <= kChunkKeys) return false;
  if (call.longest_q_len() > kFewQueries || call.weights_mode != WeightsMode::kNone) return false;
  if (call.score_mod.forward != nullptr || call.dropout.threshold() > 0) return false;
  return std::all_of(call.masks.begin(), call.masks.end(), [](const Mask& mask) {
    return mask.kind() == Mask::Kind::kCausal || mask.kind() == Mask::Kind::kWindow ||
           mask.kind() == Mask::Kind::kKeyLengths;
  });
}

void run_tile_of_group(const AttentionCall& call) {
  if (call.num_sequences() * call.num_heads() * call.longest_q_len() == 0) return;
  call.query.dtype() == DType::kFloat32 ? GroupPlan<float>(call).run()
                                        : GroupPlan<double>(call).run();
}

}  // namespace polyhead
