#include "attention/tile_of_call.h"

namespace polyhead {

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

TileMask distances(const Mask& mask, const Place& at, const Sequence& of) {
  TileMask tile{};
  tile.element = TileMask::Element::kDistance;
  tile.factor = -alibi_slope(mask, at.sequence, at.head);
  tile.position = at.row + mask.offset().of(of.q_len, of.valid_keys);
  return tile;
}

TileMask segments(const Mask& mask, const Place& at, const Sequence& of, size_t num_rows) {
  const ConstTensorView rows = ids_of(mask.tensor(), of.batch),
                        keys = ids_of(mask.key_ids(), of.batch);
  const auto element = [](const ConstTensorView& ids, int64_t n) {
    const int64_t bytes = n * ids.stride(0) * static_cast<int64_t>(dtype_bytes(ids.dtype()));
    return static_cast<const std::byte*>(ids.data()) + bytes;
  };
  TileMask tile{};
  tile.data = element(keys, of.k_begin);
  tile.row_ids = element(rows, of.q_begin + at.row);
  tile.element = keys.dtype() == DType::kInt32 ? TileMask::Element::kSegments32
                                               : TileMask::Element::kSegments64;
  tile.query_stride = rows.stride(0);
  tile.key_stride = keys.stride(0);
  tile.least_id = tile.most_id = integer_at(rows, of.q_begin + at.row);
  for (int64_t r = 1; r < static_cast<int64_t>(num_rows); ++r) {
    const int64_t id = integer_at(rows, of.q_begin + at.row + r);
    tile.least_id = std::min(tile.least_id, id);
    tile.most_id = std::max(tile.most_id, id);
  }
  return tile;
}

int64_t Tiling::first_place(int64_t sequence) const {
  return integer_at(call_.cu_seqlens_q, sequence) / rows + sequence;
}

int64_t Tiling::places() const {
  return call_.packed() ? first_place(call_.num_sequences()) : call_.batch() * tiles_;
}

TileTask Tiling::packed_task(int64_t n, int64_t heads) const {
  int64_t sequence = 0, end = call_.num_sequences();
  while (end - sequence > 1) {
    const int64_t middle = sequence + (end - sequence) / 2;
    (first_place(middle) <= n / heads ? sequence : end) = middle;
  }
  const int64_t tiles = first_place(sequence + 1) - first_place(sequence);
  const int64_t rest = n - first_place(sequence) * heads;
  return {sequence, rest / tiles, rest % tiles, tiles};
}

bool keys_are_far(const AttentionCall& call) {
  constexpr int64_t kNearBytes = int64_t{8} << 20;
  const int64_t items = call.cached.empty() ? call.batch() : call.num_sequences();
  const int64_t keys = items * call.num_kv_heads() * call.kv_len();
  const auto bytes = static_cast<int64_t>(dtype_bytes(call.query.dtype()));
  return keys * (call.head_dim() + call.v_head_dim()) > kNearBytes / bytes;
}

double attention_flops(const AttentionCall& call) {
  double pairs = 0;
  const int64_t count = call.q_len() == 0 ? 0 : call.num_sequences();
  for (int64_t n = 0; n < count; ++n) {
    const Sequence sequence = call.sequence(n);
    const KeyBand band = call.band(sequence);
    const int64_t most = std::min(band.end, band.last - band.first + 1);
    pairs += static_cast<double>(sequence.q_len) * static_cast<double>(std::max<int64_t>(most, 0));
  }
  return 2.0 * static_cast<double>(call.num_heads()) * pairs *
         static_cast<double>(call.head_dim() + call.v_head_dim());
}

}  // namespace polyhead
