// The batch items of a call, and what their rows see.
#include <algorithm>
#include <cstdint>
#include <vector>

#include "attention/attention_call.h"

namespace polyhead {
namespace {

int64_t longest(const ConstTensorView& bounds) {
  int64_t most = 0;
  for (int64_t n = 1; n < bounds.size(0); ++n) {
    most = std::max(most, integer_at(bounds, n) - integer_at(bounds, n - 1));
  }
  return most;
}

// What a mask's tensor says of a sequence.
Mask narrowed(const Mask& mask, const Sequence& of) {
  ConstTensorView tensor = mask.tensor();
  const int query = tensor.rank() - 2, key = tensor.rank() - 1;
  if (tensor.size(query) != 1) tensor = tensor.narrow(query, of.q_begin, of.q_len);
  if (tensor.size(key) != 1) tensor = tensor.narrow(key, of.k_begin, of.kv_len);
  return mask.kind() == Mask::Kind::kBoolean ? Mask::boolean(tensor, mask.sense())
                                             : Mask::additive(tensor, mask.factor());
}

}  // namespace

int64_t integer_at(const ConstTensorView& vector, int64_t n) {
  const int64_t at = n * vector.stride(0);
  return vector.dtype() == DType::kInt32 ? vector.data_as<int32_t>()[at]
                                         : vector.data_as<int64_t>()[at];
}

double alibi_slope(const Mask& mask, int64_t b, int64_t h) {
  const ConstTensorView& slopes = mask.tensor();
  const int64_t at =
      slopes.rank() == 1 ? h * slopes.stride(0) : b * slopes.stride(0) + h * slopes.stride(1);
  return slopes.dtype() == DType::kFloat32 ? static_cast<double>(slopes.data_as<float>()[at])
                                           : slopes.data_as<double>()[at];
}

Sequence AttentionCall::any_sequence(int64_t n) const {
  Sequence sequence{n, 0, q_len(), 0, kv_len(), 0};
  if (packed()) {
    sequence.batch = 0;
    sequence.q_begin = integer_at(cu_seqlens_q, n);
    sequence.q_len = integer_at(cu_seqlens_q, n + 1) - sequence.q_begin;
  }
  if (packed() && cached.empty()) {
    sequence.k_begin = integer_at(cu_seqlens_k, n);
    sequence.kv_len = integer_at(cu_seqlens_k, n + 1) - sequence.k_begin;
  }
  sequence.valid_keys = sequence.kv_len;
  for (const Mask& mask : masks) {
    if (mask.kind() != Mask::Kind::kKeyLengths) continue;
    sequence.valid_keys = std::min(sequence.valid_keys, integer_at(mask.tensor(), n));
  }
  return sequence;
}

KeyBand AttentionCall::band_of_masks(const Sequence& of) const {
  KeyBand band{-kFarAway, kFarAway, of.valid_keys};
  for (const Mask& mask : masks) {
    const int64_t offset = mask.offset().of(of.q_len, of.valid_keys);
    if (mask.left() != Mask::kUnbounded) band.first = std::max(band.first, offset - mask.left());
    if (mask.right() != Mask::kUnbounded) band.last = std::min(band.last, offset + mask.right());
  }
  return band;
}

AttentionCall sequence_alone(const AttentionCall& call, int64_t n, std::vector<Mask>* masks) {
  const Sequence of = call.sequence(n);
  masks->clear();
  for (const Mask& mask : call.masks) {
    if (mask.kind() == Mask::Kind::kKeyLengths) {
      masks->push_back(Mask::key_lengths(mask.tensor().narrow(0, n, 1)));
    } else if (mask.kind() == Mask::Kind::kSegments) {
      masks->push_back(Mask::segments(ids_of(mask.tensor(), 0).narrow(0, of.q_begin, of.q_len),
                                      ids_of(mask.key_ids(), 0).narrow(0, of.k_begin, of.kv_len)));
    } else if (mask.kind() == Mask::Kind::kAlibi && mask.tensor().rank() == 2) {
      masks->push_back(Mask::alibi(mask.tensor().narrow(0, n, 1), mask.offset()));
    } else {
      masks->push_back(is_tensor_mask(mask) ? narrowed(mask, of) : mask);
    }
  }
  AttentionCall alone = call;
  alone.query = call.query.narrow(2, of.q_begin, of.q_len);
  if (call.cached.empty()) {
    alone.key = call.key.narrow(2, of.k_begin, of.kv_len);
    alone.value = call.value.narrow(2, of.k_begin, of.kv_len);
  } else {
    alone.cached = call.cached.subspan(static_cast<size_t>(n), 1);
  }
  alone.cu_seqlens_q = alone.cu_seqlens_k = {};
  alone.masks = *masks;
  alone.first_sequence += n;
  alone.outputs = {};
  return alone;
}

int64_t AttentionCall::longest_q_len() const { return packed() ? longest(cu_seqlens_q) : q_len(); }

int64_t AttentionCall::longest_kv_len() const {
  return packed() && cached.empty() ? longest(cu_seqlens_k) : kv_len();
}

}  // namespace polyhead
