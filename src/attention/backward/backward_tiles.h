// What the plans of the backward share: the tiles of a call, its chunks of keys, and the memory
// that they are summed in.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "attention/attention_backward.h"
#include "attention/tile_of_call.h"
#include "base/parallel_tasks.h"
#include "base/workspace.h"
#include "kernels/attention_backward.h"

namespace polyhead {

// Keys [begin, end) of a head, or its appended columns.
struct KeyRange {
  int64_t begin = 0, end = 0;
  bool extra = false;

  size_t padded() const { return round_up(static_cast<size_t>(end - begin), 8); }
};

// Where a tile's gradients go; no data: not wanted. Keys as in BackwardTile.
template <class T>
struct TileGradients {
  Strided<T> query;
  bool adds_to_query = false;
  T *key = nullptr, *value = nullptr, *bias = nullptr;
};

// Chunks of keys, of the longest sequence: at least 1, the appended columns not counted. Looks at
// all sequences of a packed call: not for a task to ask.
int64_t key_chunks_of(const AttentionCall& call);

template <class T>
class BackwardTiles {
 public:
  // Allocates, and computes delta. `partial_bytes`: more memory, for the plan.
  BackwardTiles(const BackwardCall& backward, size_t partial_bytes);

  const BackwardCall& backward;
  const AttentionCall& call;
  const BackwardKernel<T> kernel;
  const Tiling tiling;

  std::byte* partials() const { return partials_; }
  double flops() const { return 2.5 * attention_flops(call); }
  size_t lanes() const { return tiling.lanes; }  // of the widest tile
  size_t lanes_of(int64_t rows) const {
    return round_up(static_cast<size_t>(rows), kernel.max_rows / 3);
  }
  size_t tile_bytes() const { return tile_bytes_; }
  size_t key_stride() const { return gradient_stride<T>(static_cast<size_t>(call.head_dim())); }
  size_t value_stride() const { return gradient_stride<T>(static_cast<size_t>(call.v_head_dim())); }
  // Of a tile, and of the sums of the longest range of keys.
  size_t workspace_bytes() const { return tile_bytes() + sums_bytes(kBackwardChunk); }

  // Chunks of keys whose part of d_query is summed by itself; the appended columns are the last.
  int64_t num_chunks() const { return key_chunks_ + (call.num_extra() > 0); }
  // The keys of a chunk in a batch item; empty past its last key.
  KeyRange chunk(int64_t index, const Sequence& of) const;
  // Whether any row of a tile sees any of the keys. The first chunk always counts: its sums, be
  // they empty, are what the others are added to.
  bool sees(const Sequence& of, int64_t tile, const KeyRange& keys) const;

  // One tile of query rows against a range of keys.
  void run(const Place& at, const KeyRange& keys, const TileGradients<T>& to,
           std::byte* workspace) const;
  // All tiles of the heads that share the keys, in order; d_key and d_value are stored.
  // `query(place)` says where d_query goes. The workspace is a task's.
  template <class Query>
  void run_keys(int64_t sequence, int64_t kv_head, const KeyRange& keys, std::byte* workspace,
                const Query& query) const;
  // The first row of a tile task.
  Place place_of(const TileTask& task) const {
    return {task.sequence, task.head, task.tile * tiling.rows};
  }
  // d_query of a place in the call's own memory.
  Strided<T> d_query(const Place& at) const;
  // The sum over the batch of what run_keys left of the appended columns.
  void sum_extra() const;
  // d_sinks of the call.
  void sink_gradients() const;

 private:
  size_t sums_bytes(size_t keys) const {
    return keys * (key_stride() + value_stride()) * sizeof(T);
  }
  T* delta_at(const Place& at) const;
  // Sums of the appended columns of one (batch, kv head).
  T* extra_sums(int64_t sequence, int64_t kv_head) const;
  BackwardTile<T> tile_at(const Place& at, TileMask* masks) const;
  void point_at(const KeyRange& keys, const Place& at, BackwardTile<T>* tile) const;
  void compute_delta();
  void store_keys(const Sequence& of, int64_t kv_head, const KeyRange& keys, const T* key,
                  const T* value) const;

  size_t bytes_of_tile() const;

  const int64_t key_chunks_;
  BackwardTile<T> shape_;
  size_t tile_bytes_ = 0;
  WorkspaceLease lease_;
  T* delta_ = nullptr;       // [B, H, L]
  T* extra_sums_ = nullptr;  // [batch items, Hkv, 8, key_stride + value_stride]
  std::byte* partials_ = nullptr;
};

template <class T>
template <class Query>
void BackwardTiles<T>::run_keys(int64_t sequence, int64_t kv_head, const KeyRange& keys,
                                std::byte* workspace, const Query& query) const {
  const Sequence of = call.sequence(sequence);
  T* key =
      keys.extra ? extra_sums(sequence, kv_head) : reinterpret_cast<T*>(workspace + tile_bytes());
  T* value = key + keys.padded() * key_stride();
  std::fill_n(key, keys.padded() * (key_stride() + value_stride()), T{0});
  const int64_t group = call.num_heads() / call.num_kv_heads();
  for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
    for (int64_t tile = 0; tile < tiling.tiles_of(of.q_len); ++tile) {
      if (!sees(of, tile, keys)) continue;
      const Place at{sequence, head, tile * tiling.rows};
      TileGradients<T> to;
      to.key = key;
      to.value = value;
      query(at, &to);
      run(at, keys, to, workspace);
    }
  }
  if (!keys.extra) store_keys(of, kv_head, keys, key, value);
}

extern template class BackwardTiles<float>;
extern template class BackwardTiles<double>;

// So that mask_gradients cannot fail.
template <class T>
void reserve_mask_memory(const BackwardTiles<T>& tiles);
// d_masks of the call: what the tiles leave, summed over heads, batch, rows or keys.
template <class T>
void mask_gradients(const BackwardTiles<T>& tiles);

}  // namespace polyhead
