// One tile of query rows against all keys: the forward kernel of attention.
//
//   out[r] = sum_j p_rj value[j] / sum_j p_rj,   p_rj = exp(scale * query[r] . key[j] + bias_rj -
//   m_r)
//
// query [rows, D]  key [S, D]  value [S, Dv]  out [rows, Dv], any strides, one head.
// Vector lanes are query rows; K and V are read in place, element by element, as broadcasts, so
// nothing of them is packed or transposed. Scores of 8 keys x 3 vectors of queries stay in
// registers until they are probabilities; those go to L1, 64 keys at a time, and are multiplied
// with V there (FlashAttention, Dao 2023, arXiv 2307.08691, with the roles of rows and lanes of
// this design). Cost per pair: 2 (D + Dv) flops, one exp2; memory O(rows * D).
// Accumulation in T throughout, every sum in one canonical order:
//   - s is one chain of fused multiply-adds over d, of (query * scale) * key, started at 0;
//   - the maximum m of a row follows the scores with a lag: it moves, at a granule of 8 keys at
//     absolute multiples of 8, only if a score exceeds m by more than 16;
//   - t = (s - m) * log2(e), p = 2^t; l and out are chains over keys in order;
//   - chunks of 1024 keys have an m, l and out of their own, folded in order.
// So a row's bits depend on nothing but its own query, keys, values and masks.
// A masked pair has score -inf, is left out of the maximum, and its value is never multiplied. A
// dropped pair counts in m and l, and from there on is treated as a masked one.
// Reference: attention/attention_reference.h. Derivation: docs/kernels/attention_forward.md.
// The whole order, operation by operation: docs/canonical_order.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/attention_dropout.h"
#include "kernels/attention_score_mod.h"
#include "simd/isa.h"

namespace polyhead {

// A matrix in memory: element (row, column) is at data[row * row_stride + column * column_stride].
template <class T>
struct Strided {
  T* data = nullptr;
  ptrdiff_t row_stride = 0, column_stride = 0;
};

// One mask tensor, positioned at the tile's first query and at key 0. Without defaults: tiles have
// room for several, and most have none.
struct TileMask {
  enum class Element : uint8_t {
    kFloat32,
    kFloat64,
    kInt32,
    kInt64,
    kBool,
    kDistance,  // not in memory: how far the row stands from the key
    kHiddenIfTrue,
    kHiddenIfFalse,
    kSegments32,  // hidden where the row's id is not the key's; int32 or int64
    kSegments64
  };
  const void* data;
  Element element;
  double factor;                       // for those that are added
  ptrdiff_t query_stride, key_stride;  // in elements
  ptrdiff_t position;                  // of kDistance: the key that row 0 stands at
  const void* row_ids;                 // of segments; `data` are those of the keys
  int64_t least_id, most_id;           // of the tile's rows
};

inline constexpr int kMaxTileMasks = 8;

// Keys and values in pages: those of j are in page pages[j / page_len - first_page], at r = j %
// page_len. Values are its rows. Its keys lie in blocks of 32, [D, 32] each, so that vectors of
// them are read as they lie: element d of r is at ((r / 32) * D + d) * 32 + r % 32.
inline constexpr size_t kKeyBlock = 32;

struct KeyPages {
  const int32_t* pages = nullptr;  // null: all rows follow each other
  size_t page_len = 0;             // a multiple of 32
  size_t first_page = 0;           // of those in `pages`; no row of a tile sees a key before it
  ptrdiff_t key_step = 0, value_step = 0;  // from page to page, in elements
};

// Row r of a tile sees the keys j with first + p <= j <= last + p and j < end, p = r / group.
struct TileBand {
  ptrdiff_t first = PTRDIFF_MIN / 2, last = PTRDIFF_MAX / 2;
  size_t end = 0;
};

// Heads that pass the same queries one after the other, with one workspace, in which their common
// things stay.
//
// Masks that are the same for all of them: the first head sums them by lanes and classifies the
// granules, the others take what it found.
//
// Averaged weights: what a head's probabilities become is known only after its last key, and a pass
// over them then would wait for the cache. So they are left where they are, and the next head adds
// them to the sum, granule by granule, where it needs the place: its arithmetic hides the traffic.
// The last head stores the mean.
struct HeadSequence {
  size_t index = 0, count = 1;
  bool keep_masks = false, average = false;

  bool first() const { return index == 0; }
  bool last() const { return index + 1 == count; }
};

// Chunks of keys have sums of their own, so that several threads can share the keys of a tile: each
// leaves the sums of a chunk here, and a last one takes them, in order. Not where weights are
// wanted.
template <class T>
struct ChunkSums {
  enum class Use : uint8_t { kNone, kLeave, kTake };
  Use use = Use::kNone;
  size_t chunk = 0;     // the one to leave
  size_t size = 0;      // of one, in elements
  T* memory = nullptr;  // [chunks, size], 64-byte aligned
};

inline constexpr size_t kChunkKeys = 1024;

template <class T>
struct AttentionTile {
  Strided<const T> query, key, value;
  Strided<T> out;
  KeyPages pages;  // of key and value, which then point at page 0; key is [32, page_len / 32 * D]
  ChunkSums<T> chunks;
  Strided<const T> extra_key, extra_value;  // appended columns, never masked
  // So many rows stand at one position after the other: heads that read the same keys. More than
  // one: no masks, score_mod, dropout or weights; the band and sinks only.
  size_t group = 1;
  size_t rows = 0, kv_len = 0, num_extra = 0, head_dim = 0, v_head_dim = 0;
  bool keys_are_far = false;  // not in L2: fetch keys and values ahead of their use
  T scale = 1;
  T softcap = 0, inverse_softcap = 0;  // 0: scores are as they come
  const TileScoreMod* mod = nullptr;   // of the caller's; null: none
  const T* sinks = nullptr;            // of each row of a group a score without a value; null: none
  ptrdiff_t sink_stride = 0;
  TileBand band;
  const TileMask* masks = nullptr;
  int num_masks = 0;
  bool empty_rows_nan = false;
  TileDropout dropout;
  T kept_scale = 1;  // of what dropout keeps
  T* lse = nullptr;  // null: not wanted
  ptrdiff_t lse_stride = 0;
  T* lse_rest = nullptr;  // what rounding took from lse; null: not wanted
  ptrdiff_t lse_rest_stride = 0;
  bool wants_weights = false;
  Strided<T> weights;  // [rows, S + X] of this head, or the mean over the sequence
  HeadSequence heads;

  bool wants_lse() const { return lse != nullptr || lse_rest != nullptr; }
};

template <class T>
struct AttentionKernel {
  size_t max_rows;  // of a tile: three vectors of lanes
  void (*run)(const AttentionTile<T>& tile, std::byte* workspace) noexcept;
  // Bytes of workspace for any tile with the sizes and outputs of `largest` and no more rows;
  // 64-byte aligned.
  size_t (*workspace_bytes)(const AttentionTile<T>& largest) noexcept;
  size_t (*chunk_size)(const AttentionTile<T>& largest) noexcept;  // ChunkSums::size
};

template <class T>
AttentionKernel<T> attention_kernel(Isa isa);

}  // namespace polyhead
