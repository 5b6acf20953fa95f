// The public op: options -> a validated call -> a plan.
#include <polyhead/attention.h>

#include <cmath>

#include "attention/attention_call.h"
#include "attention/plan.h"
#include "base/float_env.h"

namespace polyhead {

Mask Mask::boolean(ConstTensorView mask, MaskSense sense) {
  Mask result(Kind::kBoolean);
  result.tensor_ = mask;
  result.sense_ = sense;
  return result;
}

Mask Mask::additive(ConstTensorView mask, double factor) {
  Mask result(Kind::kAdditive);
  result.tensor_ = mask;
  result.factor_ = factor;
  return result;
}

Mask Mask::causal(QueryOffset offset) {
  Mask result(Kind::kCausal);
  result.offset_ = offset;
  result.right_ = 0;
  return result;
}

Mask Mask::window(int64_t left, int64_t right, QueryOffset offset) {
  Mask result(Kind::kWindow);
  result.offset_ = offset;
  result.left_ = left;
  result.right_ = right;
  return result;
}

Mask Mask::key_lengths(ConstTensorView lengths) {
  Mask result(Kind::kKeyLengths);
  result.tensor_ = lengths;
  return result;
}

Mask Mask::segments(ConstTensorView query_ids, ConstTensorView key_ids) {
  Mask result(Kind::kSegments);
  result.tensor_ = query_ids;
  result.key_ids_ = key_ids;
  return result;
}

Mask Mask::alibi(ConstTensorView slopes, QueryOffset offset) {
  Mask result(Kind::kAlibi);
  result.tensor_ = slopes;
  result.offset_ = offset;
  return result;
}

AttentionCall call_of(const ConstTensorView& query, const ConstTensorView& key,
                      const ConstTensorView& value, const AttentionOptions& options) {
  AttentionCall call{.query = query, .key = key, .value = value};
  call.masks = options.masks;
  call.cu_seqlens_q = options.cu_seqlens_q;
  call.cu_seqlens_k = options.cu_seqlens_k;
  call.softcap = options.softcap;
  call.score_mod = options.score_mod;
  call.sinks = options.sinks;
  call.empty_rows = options.empty_rows;
  call.weights_mode = options.weights;
  call.dropout = {options.dropout_p, options.seed, options.dropout_call};
  call.plan = options.plan;
  const double head_dim = query.rank() == 4 ? static_cast<double>(query.size(3)) : 1;
  call.scale = options.scale.value_or(head_dim > 0 ? 1 / std::sqrt(head_dim) : 1);
  return call;
}

void run_attention(const AttentionCall& call) {
  DefaultFloatEnv env;
  choose_plan(call).run(call);
}

void attention_forward(const ConstTensorView& query, const ConstTensorView& key,
                       const ConstTensorView& value, const AttentionOptions& options,
                       const AttentionOutputs& outputs) {
  DefaultFloatEnv env;  // before the default scale is computed
  AttentionCall call = call_of(query, key, value, options);
  call.outputs = outputs;
  validate(call, "attention_forward");
  run_attention(call);
}

}  // namespace polyhead
