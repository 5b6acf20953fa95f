// The op in double, in plain loops: the oracle of every test, and what `polyhead verify` compares
// with. Reads any call the op accepts; allocates; one thread. Shapes as in AttentionCall.
#pragma once

#include <polyhead/tensor_view.h>
#include "attention/attention_call.h"

namespace polyhead {

struct AttentionReference {
  Tensor out;  // float64 [B, H, L, Dv]
  Tensor lse;  // float64 [B, H, L]
  Tensor
      probs;  // float64 [B, H, L, S + X], after dropout, before averaging; empty unless asked for
  // What a correct kernel in the query's dtype may differ by, element for element: the error budget
  // C * r_i * sum_j p_ij |v_jd| with C = 1, p after dropout, r_i = u * (2 E_i + sqrt(S) + 4) and
  // E_i = max_j ((1 + sqrt(D)) * scale * sum|q||k| + |bias_ij| + (max_i - s_ij) + 2), over keys
  // whose p is a normal number of the dtype; plus what underflow takes: smaller p, and subnormal
  // products.
  Tensor out_budget;
  Tensor probs_budget;  // the same for the weights, sum_j p_ij |v_jd| replaced by p_ij
  Tensor lse_budget;    // C * (r_i + u * |lse|)
};

struct ReferenceOptions {
  bool probs = false;
  bool budget = false;
};

// call.outputs is not looked at.
AttentionReference attention_forward_reference(const AttentionCall& call,
                                               const ReferenceOptions& options = {});

// What the masks add to the score of one pair, summed as the op defines it; -inf: masked.
double attention_bias_reference(const AttentionCall& call, int64_t b, int64_t h, int64_t i,
                                int64_t j);

}  // namespace polyhead
