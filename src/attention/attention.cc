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

Mask Mask::causal(CausalAlign align) {
  Mask result(Kind::kCausal);
  result.align_ = align;
  return result;
}

AttentionCall call_of(const ConstTensorView& query, const ConstTensorView& key,
                      const ConstTensorView& value, const AttentionOptions& options) {
  AttentionCall call{.query = query, .key = key, .value = value};
  call.masks = options.masks;
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
