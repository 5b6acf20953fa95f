// One validated call of the op, as the plans see it. The module fills it directly, because it has
// what the public options have not: appended key/value columns, and masks without a std::vector.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include <polyhead/attention.h>
#include <polyhead/tensor_view.h>
#include "attention/dropout.h"

namespace polyhead {

// A batch item: where its queries and keys lie in the call's tensors. In a packed call the
// sequences are the batch.
struct Sequence {
  int64_t batch;  // of the tensors
  int64_t q_begin, q_len;
  int64_t k_begin, kv_len;
  int64_t valid_keys;  // of kv_len: those that key lengths leave
};

inline constexpr int64_t kFarAway = int64_t{1} << 42;  // beyond any position that is valid

// The keys that the rows of a batch item see, but for what tensor masks hide: row i those with
// first + i <= j <= last + i and j < end.
struct KeyBand {
  int64_t first, last, end;
};

// The keys and values of a sequence that a cache keeps in pages: those of position p are in page
// pages[p / page_len - first_page], at p % page_len. What is before first_page is gone.
struct CachedSequence {
  const int32_t* pages = nullptr;
  int64_t first_page = 0, length = 0;
};

struct AttentionCall {
  ConstTensorView query = {};  // [B, H, L, D]
  ConstTensorView key = {};    // [B, Hkv, S, D]
  ConstTensorView value = {};  // [B, Hkv, S, Dv]
  // Undefined in a call without a cache. In one with, value is all pages of it, [P, Hkv, page_len,
  // Dv], and so is key, by blocks of 32 positions: [P, Hkv, 32, page_len / 32 * D]. Every sequence
  // has its own pages and S = longest_cached.
  std::span<const CachedSequence> cached = {};
  int64_t longest_cached = 0;
  // Columns appended after the S keys, the same for every batch item, never masked: torch's bias_k
  // and zero_attn. [Hkv, X, D] and [Hkv, X, Dv], X <= 8. Undefined: none.
  ConstTensorView extra_key = {}, extra_value = {};
  ConstTensorView cu_seqlens_q = {}, cu_seqlens_k = {};  // [N + 1]; undefined: not packed
  int64_t first_sequence = 0;  // the number of batch item 0, for dropout and score_mod
  double scale = 1, softcap = 0;
  ScoreMod score_mod = {};
  std::span<const Mask> masks = {};
  ConstTensorView sinks = {};  // [H]
  EmptyRow empty_rows = EmptyRow::kZero;
  WeightsMode weights_mode = WeightsMode::kNone;
  Dropout dropout = {};
  AttentionOutputs outputs = {};  // weights [B, L, S + X] or [B, H, L, S + X]
  const char* plan = nullptr;
  // Takes the memory of the run without it, so that this cannot fail; computes nothing.
  bool only_reserves = false;

  int64_t batch() const { return query.size(0); }
  int64_t num_heads() const { return query.size(1); }
  int64_t num_kv_heads() const { return key.size(1); }
  int64_t q_len() const { return query.size(2); }
  int64_t kv_len() const { return cached.empty() ? key.size(2) : longest_cached; }
  int64_t head_dim() const { return query.size(3); }
  int64_t v_head_dim() const { return value.size(3); }
  int64_t num_extra() const { return extra_key.defined() ? extra_key.size(1) : 0; }
  int64_t page_len() const { return value.size(2); }  // of a cache
  int64_t kv_head(int64_t head) const { return head / (num_heads() / num_kv_heads()); }

  bool packed() const { return cu_seqlens_q.defined(); }
  int64_t num_sequences() const { return packed() ? cu_seqlens_q.size(0) - 1 : batch(); }
  // Asked for each tile: a call without masks should not feel that there could be any.
  Sequence sequence(int64_t n) const {
    if (packed() || !masks.empty()) return any_sequence(n);
    return {n, 0, q_len(), 0, kv_len(), kv_len()};
  }
  KeyBand band(const Sequence& of) const {
    return masks.empty() ? KeyBand{-kFarAway, kFarAway, of.valid_keys} : band_of_masks(of);
  }
  int64_t longest_q_len() const;
  int64_t longest_kv_len() const;

  // Where the first query of a sequence stands for a score_mod: at 0, or behind the cache's past.
  int64_t first_position(int64_t n) const {
    return cached.empty() ? 0 : cached[static_cast<size_t>(n)].length - sequence(n).q_len;
  }

  // What dropout multiplies the probability of query i and column j with: 0, or dropout.scale().
  double kept(int64_t b, int64_t h, int64_t i, int64_t j) const {
    const int64_t index = j < kv_len() ? j : kFirstAppendedKey + j - kv_len();
    const int64_t head_index = (first_sequence + b) * num_heads() + h;
    return dropout.keeps(head_index, i, index) ? dropout.scale() : 0;
  }

 private:
  Sequence any_sequence(int64_t n) const;
  KeyBand band_of_masks(const Sequence& of) const;
};

// What the public options say, with their defaults; not validated, outputs undefined.
AttentionCall call_of(const ConstTensorView& query, const ConstTensorView& key,
                      const ConstTensorView& value, const AttentionOptions& options);

// Throws InvalidArgument, `function` leading the message, unless the call is consistent.
void validate(const AttentionCall& call, const char* function);
// The same without a look at the outputs.
void validate_inputs(const AttentionCall& call, const char* function);

// Picks a plan and runs it. The call must be valid.
void run_attention(const AttentionCall& call);

// Strides of a mask's tensor as [batch, head, query, key], 0 where it broadcasts.
struct MaskStrides {
  int64_t batch = 0, head = 0, query = 0, key = 0;
};
MaskStrides mask_strides(const ConstTensorView& mask);

// Sequence n of a packed call as a call of its own, without outputs. Its masks are put into
// `masks`.
AttentionCall sequence_alone(const AttentionCall& call, int64_t n, std::vector<Mask>* masks);

// Whether a mask is numbers or booleans for pairs, which a kernel reads.
inline bool is_tensor_mask(const Mask& mask) {
  return mask.kind() == Mask::Kind::kBoolean || mask.kind() == Mask::Kind::kAdditive;
}

// An ALiBi mask's slope for a head of batch item b.
double alibi_slope(const Mask& mask, int64_t b, int64_t h);

// Element n of an int32 or int64 vector.
int64_t integer_at(const ConstTensorView& vector, int64_t n);
// The segment ids of batch item b, [n] or [B, n] being given.
inline ConstTensorView ids_of(const ConstTensorView& ids, int64_t b) {
  return ids.rank() == 1 ? ids : ids.select(0, b);
}

}  // namespace polyhead
