// The op in double, in plain loops: the oracle of every test, and what `polyhead verify` compares
// with. Reads any call the op accepts; allocates; one thread. Shapes as in AttentionCall.
#pragma once

#include <polyhead/tensor_view.h>
#include "attention/attention_call.h"

namespace polyhead {

struct AttentionReference {
  Tensor out;    // float64 [B, H, L, Dv]
  Tensor lse;    // float64 [B, H, L]
  Tensor probs;  // float64 [B, H, L, S + X], before averaging; empty unless asked for
  // What a correct kernel in the query's dtype may differ by, element for element: the error budget
  // C * u * (2 E_i + sqrt(S) + 4) * sum_j p_ij |v_jd| with C = 1 and
  // E_i = max_j (sqrt(D) * scale * sum|q||k| + |bias_ij| + (max_i - s_ij) + 2), over keys with p >
  // 0.
  Tensor out_budget;
  Tensor probs_budget;  // the same for the weights, sum_j p_ij |v_jd| replaced by p_ij
};

struct ReferenceOptions {
  bool probs = false;
  bool budget = false;
};

// call.outputs is not looked at.
AttentionReference attention_forward_reference(const AttentionCall& call,
                                               const ReferenceOptions& options = {});

}  // namespace polyhead
