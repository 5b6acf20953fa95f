// A whole module's forward in double, in plain loops, step by step: what `polyhead verify` compares
// with and what `polyhead explain` prints. Allocates; one thread. Scores, bias and probs of all
// pairs are held only for ReferenceSteps::kAll.
//
// The budget is what a correct forward in the module's dtype may differ by. With u the unit
// roundoff and every loop run on absolute values:
//   projection   e(x) = u (sqrt(in) + 2) (sum |x||w| + |b|)                for x = q, k, v
//   norm, turn   head_rows_reference.h
//   scores       ds_ij = scale sqrt(sum_d (e(q)_d k_jd)^2 + (q_d e(k)_jd)^2)
//   weights      the op's own budget + p_ij (exp(ds_ij + sum_m p_im ds_im) - 1)
//   heads        the op's own budget + sum_j of the second term . |v_j| + sqrt(sum_j (p_ij
//   e(v)_j)^2) out          sum_f |w_f| e(heads)_f + u (sqrt(width) + 2) (sum |w_f||heads_f| + |b|)
// Roundings of different chains are taken as independent (square roots), what they have in common,
// an error in a weight, as adding up.
#pragma once

#include <polyhead/multihead_attention.h>
#include <polyhead/tensor_view.h>

namespace polyhead {

struct ModuleReference {
  // The steps, float64, batch first. columns = kv_len and the appended ones.
  // Projected, query and key then normed and turned: [batch, q_len | kv_len, width | kv_width].
  Tensor query, key, value;
  Tensor extra_key, extra_value;  // [num_kv_heads, extra, head_dim], undefined if there are none
  // The next three undefined with kResults:
  Tensor scores;  // [batch, num_heads, q_len, columns], scaled, before the masks
  Tensor bias;    // the same shape: what the masks add, -inf where they hide
  Tensor probs;   // the same shape
  Tensor heads;   // [batch, q_len, width], the heads side by side
  // The results in the caller's layout, and their budgets. Weights undefined unless asked for.
  Tensor out, out_budget;
  Tensor weights, weights_budget;
};

enum class ReferenceSteps { kAll, kResults };

// What the from-scratch module has no ForwardOptions for.
struct ScratchReferenceOptions {
  WeightsMode need_weights = WeightsMode::kNone;
  ReferenceSteps steps = ReferenceSteps::kAll;
};

// Throw as forward does, and Unsupported rather than take more than 8 GiB for what is per pair.
ModuleReference module_forward_reference(const MultiheadAttention& module,
                                         const ConstTensorView& query, const ConstTensorView& key,
                                         const ConstTensorView& value,
                                         const ForwardOptions& options = {},
                                         ReferenceSteps steps = ReferenceSteps::kAll);
ModuleReference module_forward_reference(const FromScratchMultiHeadAttention& module,
                                         const ConstTensorView& q, const ConstTensorView& k,
                                         const ConstTensorView& v, const ConstTensorView& mask = {},
                                         const ScratchReferenceOptions& options = {});

}  // namespace polyhead
