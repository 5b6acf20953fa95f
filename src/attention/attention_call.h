// One validated call of the op, as the plans see it. The module fills it directly, because it has
// what the public options have not: appended key/value columns, and masks without a std::vector.
#pragma once

#include <cstddef>
#include <span>

#include <polyhead/attention.h>
#include <polyhead/tensor_view.h>
#include "attention/dropout.h"

namespace polyhead {

struct AttentionCall {
  ConstTensorView query = {};  // [B, H, L, D]
  ConstTensorView key = {};    // [B, Hkv, S, D]
  ConstTensorView value = {};  // [B, Hkv, S, Dv]
  // Columns appended after the S keys, the same for every batch item, never masked: torch's bias_k
  // and zero_attn. [Hkv, X, D] and [Hkv, X, Dv], X <= 8. Undefined: none.
  ConstTensorView extra_key = {}, extra_value = {};
  double scale = 1;
  std::span<const Mask> masks = {};
  EmptyRow empty_rows = EmptyRow::kZero;
  WeightsMode weights_mode = WeightsMode::kNone;
  Dropout dropout = {};
  AttentionOutputs outputs = {};  // weights [B, L, S + X] or [B, H, L, S + X]
  const char* plan = nullptr;

  int64_t batch() const { return query.size(0); }
  int64_t num_heads() const { return query.size(1); }
  int64_t num_kv_heads() const { return key.size(1); }
  int64_t q_len() const { return query.size(2); }
  int64_t kv_len() const { return key.size(2); }
  int64_t head_dim() const { return query.size(3); }
  int64_t v_head_dim() const { return value.size(3); }
  int64_t num_extra() const { return extra_key.defined() ? extra_key.size(1) : 0; }
  int64_t kv_head(int64_t head) const { return head / (num_heads() / num_kv_heads()); }
  // What dropout multiplies the probability of query i and column j with: 0, or dropout.scale().
  double kept(int64_t b, int64_t h, int64_t i, int64_t j) const {
    const int64_t index = j < kv_len() ? j : kFirstAppendedKey + j - kv_len();
    return dropout.keeps(b * num_heads() + h, i, index) ? dropout.scale() : 0;
  }
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

// Keys query i may see under a causal mask: j <= i + offset.
int64_t causal_offset(CausalAlign align, int64_t q_len, int64_t kv_len);

}  // namespace polyhead
