// One validated call of the op's backward, as its plans see it.
#pragma once

#include <span>
#include <vector>

#include <polyhead/attention.h>
#include <polyhead/tensor_view.h>
#include "attention/attention_call.h"

namespace polyhead {

struct BackwardCall {
  AttentionCall call;                   // as the forward's; outputs are not looked at
  AttentionBackwardInputs inputs = {};  // d_weights [B, L, S + X] or [B, H, L, S + X]
  // Undefined: not wanted.
  TensorView d_query = {}, d_key = {}, d_value = {};
  TensorView d_extra_key = {}, d_extra_value = {};  // [Hkv, X, D | Dv], summed over the batch
  std::span<const TensorView> d_masks = {};         // empty, or one for each mask
  TensorView d_sinks = {};                          // [H]

  bool wants_keys() const {
    return d_key.defined() || d_value.defined() || d_extra_key.defined() || d_extra_value.defined();
  }
};

// Throws InvalidArgument, `function` leading the message, unless the call is consistent.
void validate(const BackwardCall& backward, const char* function);

// Picks a plan and runs it. The call must be valid.
void run_attention_backward(const BackwardCall& backward);

// The ordered table of plans: choice depends on shapes, on what is wanted and on the number of
// threads, never on timing; the bits depend on neither, but for `reference`, which is never chosen.
struct BackwardPlan {
  const char* name;
  const char* when;
  bool (*fits)(const BackwardCall& backward);
  void (*run)(const BackwardCall& backward);
};
std::span<const BackwardPlan> backward_plans();

}  // namespace polyhead
