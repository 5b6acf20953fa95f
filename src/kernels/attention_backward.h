// One tile of query rows against one chunk of keys: the backward kernel of attention.
//
//   p_rj = exp(scale * query[r] . key[j] + bias_rj - lse_r)        made again, never kept
//   d_value[j] += sum_r k_rj p_rj d_out[r],    k_rj = 1, or 0 or 1 / (1 - p) under dropout
//   d_p_rj = k_rj (d_out[r] . value[j] + d_weights_rj),    d_score_rj = p_rj (d_p_rj - delta_r)
//   d_query[r] += scale sum_j d_score_rj key[j],    d_key[j] += scale sum_r d_score_rj query[r]
//   delta_r = d_out[r] . out[r] + sum_j k_rj p_rj d_weights_rj
//
// Shapes as in attention_forward.h. Five products where the forward has two; the lanes are query
// rows in the first three (scores, d_p, d_query), as there, and columns of the gradient in the
// other two (d_value, d_key), whose rows are keys. Probabilities of 64 keys at a time stay in L1
// (FlashAttention, Dao 2023, arXiv 2307.08691, appendix B, with the roles of rows and lanes of
// this design). Cost per visible pair: 6 D + 4 Dv flops, one exp2; memory O(rows * (D + Dv)).
// Accumulation in T, every sum in one canonical order:
//   - a score and t = ((s - lse) - lse_rest) * log2(e), p = 2^t as in the forward; d_p is one chain
//   over Dv;
//   - d_key[j] and d_value[j] are chains over the heads that share the key, and in each over the
//     query rows in order;
//   - d_query[r] is a chain over the keys of each chunk of 512 in order, and the sum of the chunks
//     in order; appended columns are a chunk of their own, the last;
//   - delta_r is a chain over Dv, followed by one over the keys.
// Reference: attention/attention_backward_reference.h. The whole order: docs/canonical_order.md.
#pragma once

#include <cstddef>

#include "kernels/attention_forward.h"
#include "simd/isa.h"

namespace polyhead {

inline constexpr size_t kBackwardChunk = 512;  // keys whose part of d_query is summed by itself

// Columns of a row of key or value gradients, padded to whole vectors of any ISA.
template <class T>
size_t gradient_stride(size_t dims) {
  return (dims * sizeof(T) + 63) / 64 * 64 / sizeof(T);
}

template <class T>
struct BackwardTile {
  AttentionTile<T> in;     // its rows, keys, values, masks and scale; outputs and extras are unused
  Strided<const T> d_out;  // [rows, Dv]
  const T* lse = nullptr;  // [rows], lse_stride apart
  ptrdiff_t lse_stride = 1;
  const T* lse_rest = nullptr;  // [rows], what rounding took from lse; null: not known
  ptrdiff_t lse_rest_stride = 1;
  const T* delta = nullptr;           // [rows]
  Strided<const T> d_weights;         // [rows, S]; no data: none
  T weights_share = 1;                // what d_weights is multiplied with: 1 / heads of an average
  bool appended = false;              // the keys are appended columns
  size_t key_begin = 0, key_end = 0;  // the chunk; key_begin a multiple of 8
  Strided<T> d_query;                 // [rows, D]; no data: not wanted
  bool adds_to_query = false;         // to what the chunks before left there
  T* d_key = nullptr;    // [round_up(chunk, 8), gradient_stride(D)] added to; null: not wanted
  T* d_value = nullptr;  // the same with Dv; wanted if and only if d_key is
  T* d_bias = nullptr;   // [round_up(chunk, 8), lanes] gradient of the masks' sum, added to;
                         // null: not wanted
};

template <class T>
struct BackwardKernel {
  size_t max_rows;  // of a tile: three vectors of lanes
  void (*run)(const BackwardTile<T>& tile, std::byte* workspace) noexcept;
  // delta of the tile's rows: from `out` [rows, Dv], or where that has no data from what `delta`
  // holds already; and, if there are d_weights, from all keys.
  void (*delta)(const BackwardTile<T>& tile, const Strided<const T>& out, T* delta,
                std::byte* workspace) noexcept;
  // What part of the softmax the tile's sink takes in each row: [rows], padded to whole vectors.
  void (*sink_probs)(const BackwardTile<T>& tile, T* probs) noexcept;
};

template <class T>
BackwardKernel<T> backward_kernel(Isa isa);

// Bytes of workspace for any tile of this shape with so many lanes or fewer, 64-byte aligned.
template <class T>
size_t backward_workspace_bytes(const BackwardTile<T>& shape, size_t lanes);

}  // namespace polyhead
