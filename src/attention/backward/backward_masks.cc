// Gradients of additive masks. A mask [1|B, 1|H, 1|L, 1|S] receives the gradient of the masks' sum,
// summed over what it broadcasts over: over batch items and their heads first, in order, then over
// rows, then over keys.
#include "attention/backward/backward_tiles.h"

namespace polyhead {
namespace {

// What one mask is, and where its gradient goes.
template <class T>
struct MaskGradient {
  const BackwardTiles<T>& tiles;
  TensorView to;
  T factor;

  int64_t size(int dim) const {  // of [B, H, L, S]; 1 where it broadcasts
    const int own = dim - 4 + to.rank();
    return own < 0 ? 1 : to.size(own);
  }
};

// bias [keys, lanes] of one tile of rows: the sum over the heads and batch items that share a mask.
template <class T>
void sum_tile(const MaskGradient<T>& mask, const Place& first, T* bias, std::byte* workspace) {
  const AttentionCall& call = mask.tiles.call;
  const KeyRange keys{0, call.kv_len(), false};
  const int64_t batch_end = mask.size(0) == 1 ? call.batch() : first.sequence + 1;
  const int64_t head_end = mask.size(1) == 1 ? call.num_heads() : first.head + 1;
  std::fill_n(bias, keys.padded() * mask.tiles.lanes(), T{0});
  for (int64_t b = first.sequence; b < batch_end; ++b) {
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

// One row of the mask's gradient from [keys] numbers, `step` apart.
template <class T>
void store_row(const MaskGradient<T>& mask, const Place& at, const T* numbers, size_t step) {
  const MaskStrides s = mask_strides(mask.to);
  T* to =
      mask.to.template data_as<T>() + at.sequence * s.batch + at.head * s.head + at.row * s.query;
  const int64_t kv_len = mask.tiles.call.kv_len();
  if (mask.size(3) == 1) {
    *to = mask.factor * sum_of(numbers, kv_len, step) + T{0};  // a product may be -0.0
    return;
  }
  for (int64_t j = 0; j < kv_len; ++j, numbers += step) {
    to[j * s.key] = mask.factor * *numbers + T{0};
  }
}

// A mask with rows of its own.
template <class T>
void by_rows(const MaskGradient<T>& mask, const Place& first, T* bias, std::byte* workspace) {
  sum_tile(mask, first, bias, workspace);
  const Tiling& tiling = mask.tiles.tiling;
  const int64_t rows = std::min(mask.tiles.call.q_len() - first.row, tiling.rows);
  const size_t lanes = mask.tiles.lanes_of(rows);
  for (int64_t r = 0; r < rows; ++r) {
    store_row(mask, {first.sequence, first.head, first.row + r}, bias + r, lanes);
  }
}

// A mask that all rows share: [keys] after the lanes of the tile.
template <class T>
void over_rows(const MaskGradient<T>& mask, const Place& first, T* bias, std::byte* workspace) {
  const AttentionCall& call = mask.tiles.call;
  const Tiling& tiling = mask.tiles.tiling;
  T* sums = bias + round_up(static_cast<size_t>(call.kv_len()), 8) * mask.tiles.lanes();
  std::fill_n(sums, call.kv_len(), T{0});
  for (int64_t row = 0; row < call.q_len(); row += tiling.rows) {
    sum_tile(mask, {first.sequence, first.head, row}, bias, workspace);
    const int64_t rows = std::min(call.q_len() - row, tiling.rows);
    const size_t lanes = mask.tiles.lanes_of(rows);
    for (int64_t j = 0; j < call.kv_len(); ++j) {
      for (int64_t r = 0; r < rows; ++r) {
        sums[j] += bias[static_cast<size_t>(j) * lanes + static_cast<size_t>(r)];
      }
    }
  }
  store_row(mask, first, sums, 1);
}

// How one mask's gradient is divided.
template <class T>
struct MaskTasks {
  bool own_rows;
  int64_t heads, tiles;  // of each batch item of the mask
  size_t count, bytes;

  explicit MaskTasks(const MaskGradient<T>& mask) {
    const AttentionCall& call = mask.tiles.call;
    own_rows = mask.size(2) != 1 || call.q_len() == 1;
    heads = mask.size(1);
    tiles = own_rows ? mask.tiles.tiling.tiles_of(call.q_len()) : 1;
    count = static_cast<size_t>(mask.size(0) * heads * tiles);
    const size_t keys = round_up(static_cast<size_t>(call.kv_len()), 8);
    bytes = mask.tiles.tile_bytes() + keys * (mask.tiles.lanes() + 1) * sizeof(T);
  }
};

template <class T>
void mask_gradient(const MaskGradient<T>& mask) {
  const MaskTasks<T> tasks(mask);
  const auto run = [&](size_t task, std::byte* workspace) {
    const auto n = static_cast<int64_t>(task);
    const Place at{n / tasks.tiles / tasks.heads, n / tasks.tiles % tasks.heads,
                   n % tasks.tiles * mask.tiles.tiling.rows};
    T* bias = reinterpret_cast<T*>(workspace + mask.tiles.tile_bytes());
    tasks.own_rows ? by_rows(mask, at, bias, workspace) : over_rows(mask, at, bias, workspace);
  };
  parallel_tasks(tasks.count, mask.tiles.flops(), tasks.bytes, run);
}

// use(mask) for those that are wanted.
template <class T, class Use>
void for_each_mask(const BackwardTiles<T>& tiles, const Use& use) {
  const auto& masks = tiles.backward.d_masks;
  for (size_t n = 0; n < masks.size(); ++n) {
    if (!masks[n].defined() || masks[n].numel() == 0) continue;
    use(MaskGradient<T>{tiles, masks[n], static_cast<T>(tiles.call.masks[n].factor())});
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
