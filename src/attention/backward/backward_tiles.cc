#include "attention/backward/backward_tiles.h"

namespace polyhead {
namespace {

constexpr size_t kMostRows = 64;  // of a tile, on any instruction set

// to[r][c] = sums[r][c] + 0: a sum may be -0.0.
template <class T>
void store_sums(const T* sums, size_t stride, int64_t rows, const TensorView& view,
                const Strided<T>& to) {
  if (!view.defined()) return;
  const int64_t columns = view.size(view.rank() - 1);
  for (int64_t r = 0; r < rows; ++r, sums += stride) {
    T* row = to.data + r * to.row_stride;
    for (int64_t c = 0; c < columns; ++c) row[c * to.column_stride] = sums[c] + T{0};
  }
}

// d_extra[h][x][c] = sum over b of sums[b][h][x][c], in order.
template <class T>
void sum_batch(const T* sums, size_t stride, size_t item, int64_t batch, const TensorView& to) {
  for (int64_t n = 0; n < (to.defined() ? to.numel() : 0); ++n) {
    const int64_t c = n % to.size(2), x = n / to.size(2) % to.size(1);
    const int64_t h = n / to.size(2) / to.size(1);
    T sum = 0;
    for (int64_t b = 0; b < batch; ++b) {
      sum += sums[static_cast<size_t>(b * to.size(0) + h) * item + static_cast<size_t>(x) * stride +
                  static_cast<size_t>(c)];
    }
    to.data_as<T>()[h * to.stride(0) + x * to.stride(1) + c * to.stride(2)] = sum;
  }
}

}  // namespace

int64_t key_chunks_of(const AttentionCall& call) {
  constexpr auto kChunk = static_cast<int64_t>(kBackwardChunk);
  return std::max<int64_t>((call.longest_kv_len() + kChunk - 1) / kChunk, 1);
}

template <class T>
BackwardTiles<T>::BackwardTiles(const BackwardCall& of, size_t partial_bytes)
    : backward(of),
      call(of.call),
      kernel(backward_kernel<T>(active_isa())),
      tiling(of.call, kernel.max_rows),
      key_chunks_(key_chunks_of(of.call)) {
  shape_.in = tile_of<T>(call);
  tile_bytes_ = bytes_of_tile();
  const auto rows = static_cast<size_t>(call.batch() * call.num_heads() * call.q_len());
  const auto kv_heads = static_cast<size_t>(call.num_sequences() * call.num_kv_heads());
  const size_t delta = round_up(rows * sizeof(T), kAlignment);
  const size_t extra = call.num_extra() > 0 ? kv_heads * sums_bytes(8) : 0;
  std::byte* memory = lease_.reserve(std::max<size_t>(delta + extra + partial_bytes, 1));
  delta_ = reinterpret_cast<T*>(memory);
  extra_sums_ = reinterpret_cast<T*>(memory + delta);
  partials_ = memory + delta + extra;
  compute_delta();
}

// Tiles have a score_mod of their own, which takes room.
template <class T>
size_t BackwardTiles<T>::bytes_of_tile() const {
  const TileScoreMod any{};
  BackwardTile<T> largest = shape_;
  if (call.score_mod.forward != nullptr) largest.in.mod = &any;
  return backward_workspace_bytes(largest, tiling.lanes);
}

template <class T>
KeyRange BackwardTiles<T>::chunk(int64_t index, const Sequence& of) const {
  if (index == key_chunks_) return {0, call.num_extra(), true};
  constexpr auto kChunk = static_cast<int64_t>(kBackwardChunk);
  const int64_t begin = index * kChunk;
  return {begin, std::max(begin, std::min(of.kv_len, begin + kChunk)), false};
}

template <class T>
bool BackwardTiles<T>::sees(const Sequence& of, int64_t tile, const KeyRange& keys) const {
  if (keys.extra || keys.begin == 0) return true;
  const int64_t first_row = tile * tiling.rows;
  const int64_t last_row = std::min(first_row + tiling.rows, of.q_len) - 1;
  const KeyBand band = call.band(of);
  return keys.begin < std::min(band.end, band.last + last_row + 1) &&
         keys.end > band.first + first_row;
}

template <class T>
T* BackwardTiles<T>::extra_sums(int64_t sequence, int64_t kv_head) const {
  const auto n = static_cast<size_t>(sequence * call.num_kv_heads() + kv_head);
  return extra_sums_ + n * 8 * (key_stride() + value_stride());
}

template <class T>
BackwardTile<T> BackwardTiles<T>::tile_at(const Place& at, TileMask* masks) const {
  const Sequence of = call.sequence(at.sequence);
  const int64_t batch = of.batch, head = at.head, row = of.q_begin + at.row;
  BackwardTile<T> tile = shape_;
  tile.in.rows = static_cast<size_t>(std::min<int64_t>(of.q_len - at.row, tiling.rows));
  place_masks(call, at, of, masks, &tile.in);
  place_dropout(call, at, &tile.in);
  tile.in.query = matrix<T>(call.query, batch, head, row);
  tile.in.key = matrix<T>(call.key, batch, call.kv_head(head), of.k_begin);
  tile.in.value = matrix<T>(call.value, batch, call.kv_head(head), of.k_begin);
  tile.d_out = matrix<T>(backward.inputs.d_out, batch, head, row);
  tile.lse = offset<T>(backward.inputs.lse, batch, head, row);
  tile.lse_stride = backward.inputs.lse.stride(2);
  if (const ConstTensorView& rest = backward.inputs.lse_rest; rest.defined()) {
    tile.lse_rest = offset<T>(rest, batch, head, row);
    tile.lse_rest_stride = rest.stride(2);
  }
  tile.delta = delta_at(at);
  const ConstTensorView& d_weights = backward.inputs.d_weights;
  if (!d_weights.defined()) return tile;
  if (call.weights_mode == WeightsMode::kPerHead) {
    tile.d_weights = matrix<T>(d_weights, batch, head, row);
  } else {
    tile.d_weights = {offset<T>(d_weights, batch, row, 0), d_weights.stride(1),
                      d_weights.stride(2)};
    tile.weights_share = T{1} / static_cast<T>(call.num_heads());
  }
  return tile;
}

template <class T>
T* BackwardTiles<T>::delta_at(const Place& at) const {
  const Sequence of = call.sequence(at.sequence);
  return delta_ + (of.batch * call.num_heads() + at.head) * call.q_len() + of.q_begin + at.row;
}

template <class T>
void BackwardTiles<T>::point_at(const KeyRange& keys, const Place& at,
                                BackwardTile<T>* tile) const {
  tile->key_begin = static_cast<size_t>(keys.begin);
  tile->key_end = static_cast<size_t>(keys.end);
  tile->appended = keys.extra;
  if (!keys.extra) return;
  const auto &key = call.extra_key, &value = call.extra_value;
  const int64_t kv_head = call.kv_head(at.head);
  tile->in.key = {offset<T>(key, kv_head, 0, 0), key.stride(1), key.stride(2)};
  tile->in.value = {offset<T>(value, kv_head, 0, 0), value.stride(1), value.stride(2)};
  tile->in.kv_len = tile->key_end;
  tile->in.num_masks = 0;
  tile->in.mod = nullptr;
  tile->in.band = {.end = tile->key_end};
  if (tile->d_weights.data != nullptr) {
    tile->d_weights.data += call.kv_len() * tile->d_weights.column_stride;
  }
}

template <class T>
void BackwardTiles<T>::run(const Place& at, const KeyRange& keys, const TileGradients<T>& to,
                           std::byte* workspace) const {
  TileMask masks[kMaxTileMasks];
  TileScoreMod mod;
  BackwardTile<T> tile = tile_at(at, masks);
  place_score_mod(call, at, &mod, &tile.in);
  point_at(keys, at, &tile);
  tile.d_query = to.query;
  tile.adds_to_query = to.adds_to_query;
  tile.d_key = to.key;
  tile.d_value = to.value;
  tile.d_bias = to.bias;
  kernel.run(tile, workspace);
}

template <class T>
Strided<T> BackwardTiles<T>::d_query(const Place& at) const {
  if (!backward.d_query.defined()) return {};
  const Sequence of = call.sequence(at.sequence);
  return matrix_out<T>(backward.d_query, of.batch, at.head, of.q_begin + at.row);
}

// Reads out and d_out once, unless weights have gradients.
template <class T>
void BackwardTiles<T>::compute_delta() {
  const bool weights = backward.inputs.d_weights.defined();
  const double flops = weights ? attention_flops(call) : 0.1 * attention_flops(call);
  const auto run = [&](size_t n, std::byte* workspace) {
    const Place at = place_of(tiling.task(static_cast<int64_t>(n), call.num_heads()));
    const Sequence of = call.sequence(at.sequence);
    if (at.row >= of.q_len) return;
    TileMask masks[kMaxTileMasks];
    TileScoreMod mod;
    BackwardTile<T> tile = tile_at(at, masks);
    place_score_mod(call, at, &mod, &tile.in);
    T* delta = delta_at(at);
    kernel.delta(tile, matrix<T>(backward.inputs.out, of.batch, at.head, of.q_begin + at.row),
                 delta, workspace);
    if (!weights || call.num_extra() == 0) return;
    point_at(chunk(key_chunks_, of), at, &tile);
    kernel.delta(tile, {}, delta, workspace);
  };
  parallel_tasks(static_cast<size_t>(tiling.places() * call.num_heads()), flops, tile_bytes(), run);
}

template <class T>
void BackwardTiles<T>::store_keys(const Sequence& of, int64_t kv_head, const KeyRange& keys,
                                  const T* key, const T* value) const {
  const int64_t rows = keys.end - keys.begin, first = of.k_begin + keys.begin;
  const TensorView &d_key = backward.d_key, &d_value = backward.d_value;
  if (d_key.defined()) {
    store_sums(key, key_stride(), rows, d_key, matrix_out<T>(d_key, of.batch, kv_head, first));
  }
  if (d_value.defined()) {
    store_sums(value, value_stride(), rows, d_value,
               matrix_out<T>(d_value, of.batch, kv_head, first));
  }
}

template <class T>
void BackwardTiles<T>::sum_extra() const {
  if (call.num_extra() == 0) return;
  const size_t item = 8 * (key_stride() + value_stride());
  const int64_t count = call.num_sequences();
  sum_batch(extra_sums_, key_stride(), item, count, backward.d_extra_key);
  sum_batch(extra_sums_ + 8 * key_stride(), value_stride(), item, count, backward.d_extra_value);
}

// forward: p = exp(sink - lse) of each row, which has no value. A head's rows in order.
template <class T>
void BackwardTiles<T>::sink_gradients() const {
  const TensorView& to = backward.d_sinks;
  const auto run = [&](size_t n, std::byte*) {
    const auto head = static_cast<int64_t>(n);
    T sum = 0, probs[kMostRows];
    for (int64_t place = 0; place < tiling.places(); ++place) {
      Place at = place_of(tiling.task(place, 1));
      at.head = head;
      if (at.row >= call.sequence(at.sequence).q_len) continue;
      TileMask masks[kMaxTileMasks];
      const BackwardTile<T> tile = tile_at(at, masks);
      kernel.sink_probs(tile, probs);
      for (size_t r = 0; r < tile.in.rows; ++r) sum += probs[r] * tile.delta[r];
    }
    to.data_as<T>()[head * to.stride(0)] = T{0} - sum;
  };
  const auto exps = 20.0 * static_cast<double>(call.batch() * call.num_heads() * call.q_len());
  if (to.defined()) parallel_tasks(static_cast<size_t>(call.num_heads()), exps, 0, run);
}

template class BackwardTiles<float>;
template class BackwardTiles<double>;

}  // namespace polyhead
