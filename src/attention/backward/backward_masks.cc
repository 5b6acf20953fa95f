// Gradients of additive masks. A mask [1|B, 1|H, 1|L, 1|S] receives the gradient of the masks' sum,
// summed over what it broadcasts over: over batch items and their heads first, in order, then over
// rows, then over keys; of a packed call over heads, rows, keys and sequences.
#include "attention/backward/backward_tiles.h"

namespace polyhead {
namespace {

// What one mask is, and where its gradient goes.
template <class T>
struct MaskGradient {
  const BackwardTiles<T>& tiles;
  TensorView to;
  T factor;
  size_t padded_keys;  // of the longest sequence

  int64_t size(int dim) const {  // of [B, H, L, S]; 1 where it broadcasts
    const int own = dim - 4 + to.rank();
    return own < 0 ? 1 : to.size(own);
  }
  // Where a batch item's rows and keys are. A mask's gradient is there if the batch is empty, whose
  // first item has no key length to look at.
  Sequence sequence(int64_t n) const {
    const AttentionCall& call = tiles.call;
    if (call.packed()) return call.sequence(n);
    return {n, 0, call.q_len(), 0, call.kv_len(), call.kv_len()};
  }
  // That of a place's row and of its sequence's first key.
  T* at(const Place& at, const Sequence& of) const {
    const MaskStrides s = mask_strides(to);
    return to.template data_as<T>() + of.batch * s.batch + at.head * s.head +
           (of.q_begin + at.row) * s.query + of.k_begin * s.key;
  }
  int64_t key_stride() const { return mask_strides(to).key; }
};

// bias [keys, lanes] of one tile of rows: the sum over the heads and batch items that share a mask.
// Sequences of a packed call share none of their pairs.
template <class T>
void sum_tile(const MaskGradient<T>& mask, const Place& first, T* bias, std::byte* workspace) {
  const AttentionCall& call = mask.tiles.call;
  const KeyRange keys{0, mask.sequence(first.sequence).kv_len, false};
  const bool all_items = mask.size(0) == 1 && !call.packed();
  const int64_t items_end = all_items ? call.batch() : first.sequence + 1;
  const int64_t head_end = mask.size(1) == 1 ? call.num_heads() : first.head + 1;
  std::fill_n(bias, keys.padded() * mask.tiles.lanes(), T{0});
  for (int64_t b = first.sequence; b < items_end; ++b) {
    for (int64_t h = first.head; h < head_end; ++h) {
      TileGradients<T> to;
      to.bias = bias;
      mask.tiles.run({b, h, first.row}, keys, to, workspace);
    }
  }
}

// Adds `count` numbers, `step` apart, in order.
template <class T>
T sum_of(const T* numbers, int64_t count, size_t step) {
  T sum = 0;
  for (int64_t n = 0; n < count; ++n, numbers += step) sum += *numbers;
  return sum;
}

// A product may be -0.0, a gradient not.
template <class T>
T times_factor(const MaskGradient<T>& mask, T sum) {
  return mask.factor * sum + T{0};
}

// One row of a mask with keys of its own, from [keys] numbers, `step` apart.
template <class T>
void store_row(const MaskGradient<T>& mask, const Place& at, const T* numbers, size_t step) {
  const Sequence of = mask.sequence(at.sequence);
  const int64_t key_stride = mask.key_stride();
  T* to = mask.at(at, of);
  for (int64_t j = 0; j < of.kv_len; ++j, numbers += step) {
    to[j * key_stride] = times_factor(mask, *numbers);
  }
}

// The pairs of a packed call's row with the keys of other sequences.
template <class T>
void clear_others(const MaskGradient<T>& mask, const Place& at, const Sequence& of) {
  const int64_t key_stride = mask.key_stride(), end = mask.tiles.call.kv_len() - of.k_begin;
  T* own = mask.at(at, of);
  for (int64_t j = -of.k_begin; j < 0; ++j) own[j * key_stride] = 0;
  for (int64_t j = of.kv_len; j < end; ++j) own[j * key_stride] = 0;
}

// A mask with rows of its own. The tile may be past a packed sequence's last.
template <class T>
void by_rows(const MaskGradient<T>& mask, const Place& first, T* bias, std::byte* workspace) {
  const Sequence of = mask.sequence(first.sequence);
  const int64_t rows = std::min(of.q_len - first.row, mask.tiles.tiling.rows);
  if (rows <= 0) return;
  sum_tile(mask, first, bias, workspace);
  const size_t lanes = mask.tiles.lanes_of(rows);
  for (int64_t r = 0; r < rows; ++r) {
    const Place at{first.sequence, first.head, first.row + r};
    if (mask.size(3) == 1) {
      *mask.at(at, of) = times_factor(mask, sum_of(bias + r, of.kv_len, lanes));
      continue;
    }
    store_row(mask, at, bias + r, lanes);
    clear_others(mask, at, of);
  }
}

// sums [keys] over all rows of a sequence.
template <class T>
void sum_rows(const MaskGradient<T>& mask, Place at, T* sums, T* bias, std::byte* workspace) {
  const Tiling& tiling = mask.tiles.tiling;
  const Sequence of = mask.sequence(at.sequence);
  std::fill_n(sums, of.kv_len, T{0});
  for (at.row = 0; at.row < of.q_len; at.row += tiling.rows) {
    sum_tile(mask, at, bias, workspace);
    const int64_t rows = std::min(of.q_len - at.row, tiling.rows);
    const size_t lanes = mask.tiles.lanes_of(rows);
    for (int64_t j = 0; j < of.kv_len; ++j) {
      for (int64_t r = 0; r < rows; ++r) {
        sums[j] += bias[static_cast<size_t>(j) * lanes + static_cast<size_t>(r)];
      }
    }
  }
}

// A mask that all rows share, be they of several sequences: sums [keys] are after the lanes of the
// tile.
template <class T>
void over_rows(const MaskGradient<T>& mask, const Place& first, T* bias, std::byte* workspace) {
  const AttentionCall& call = mask.tiles.call;
  T* sums = bias + mask.padded_keys * mask.tiles.lanes();
  T total = 0;
  const int64_t items_end = call.packed() ? call.num_sequences() : first.sequence + 1;
  for (int64_t n = first.sequence; n < items_end; ++n) {
    const Place at{n, first.head, 0};
    sum_rows(mask, at, sums, bias, workspace);
    if (mask.size(3) == 1) {
      total += sum_of(sums, mask.sequence(n).kv_len, 1);
    } else {
      store_row(mask, at, sums, 1);
    }
  }
  const Sequence of{first.sequence, 0, 0, 0, 0, 0};  // a packed call may have none
  if (mask.size(3) == 1) *mask.at(first, of) = times_factor(mask, total);
}

// How one mask's gradient is divided.
template <class T>
struct MaskTasks {
  bool own_rows;
  int64_t heads, tiles;  // tiles: of each batch item of the mask; of a packed call, of all
  size_t count, bytes;

  explicit MaskTasks(const MaskGradient<T>& mask) {
    const AttentionCall& call = mask.tiles.call;
    const Tiling& tiling = mask.tiles.tiling;
    own_rows = mask.size(2) != 1 || call.q_len() == 1;
    heads = mask.size(1);
    tiles = call.packed() ? tiling.places() : tiling.tiles_of(call.q_len());
    if (!own_rows) tiles = 1;
    count = static_cast<size_t>(mask.size(0) * heads * tiles);
    bytes = mask.tiles.tile_bytes() + mask.padded_keys * (mask.tiles.lanes() + 1) * sizeof(T);
  }
  Place place(const MaskGradient<T>& mask, int64_t n) const {
    const Tiling& tiling = mask.tiles.tiling;
    if (own_rows && mask.tiles.call.packed()) return mask.tiles.place_of(tiling.task(n, heads));
    return {n / tiles / heads, n / tiles % heads, n % tiles * tiling.rows};
  }
};

template <class T>
void mask_gradient(const MaskGradient<T>& mask) {
  const MaskTasks<T> tasks(mask);
  const auto run = [&](size_t task, std::byte* workspace) {
    const Place at = tasks.place(mask, static_cast<int64_t>(task));
    T* bias = reinterpret_cast<T*>(workspace + mask.tiles.tile_bytes());
    tasks.own_rows ? by_rows(mask, at, bias, workspace) : over_rows(mask, at, bias, workspace);
  };
  parallel_tasks(tasks.count, mask.tiles.flops(), tasks.bytes, run);
}

// use(mask) for those that are wanted.
template <class T, class Use>
void for_each_mask(const BackwardTiles<T>& tiles, const Use& use) {
  const auto& masks = tiles.backward.d_masks;
  if (masks.empty()) return;
  const size_t keys = round_up(static_cast<size_t>(tiles.call.longest_kv_len()), 8);
  for (size_t n = 0; n < masks.size(); ++n) {
    if (!masks[n].defined() || masks[n].numel() == 0) continue;
    use(MaskGradient<T>{tiles, masks[n], static_cast<T>(tiles.call.masks[n].factor()), keys});
  }
}

}  // namespace

template <class T>
void reserve_mask_memory(const BackwardTiles<T>& tiles) {
  for_each_mask(tiles, [](const MaskGradient<T>& mask) {
    const MaskTasks<T> tasks(mask);
    reserve_task_memory(tasks.count, mask.tiles.flops(), tasks.bytes);
  });
}

template <class T>
void mask_gradients(const BackwardTiles<T>& tiles) {
  for_each_mask(tiles, [](const MaskGradient<T>& mask) { mask_gradient(mask); });
}

template void reserve_mask_memory(const BackwardTiles<float>&);
template void reserve_mask_memory(const BackwardTiles<double>&);
template void mask_gradients(const BackwardTiles<float>&);
template void mask_gradients(const BackwardTiles<double>&);

}  // namespace polyhead
