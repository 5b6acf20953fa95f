// A whole module's gradients in double, in plain loops: the oracle of its backward. One thread;
// O(batch * heads * q_len * columns) memory.
//
// Every number carries what a correct computation in the module's dtype may be off by. With u the
// unit roundoff, e() that error and p, e(p) the forward reference's weights and their budget:
//   a sum of n products   e = sum e(a)|b| + |a| e(b) + u (sqrt(n) + 2) sum |a||b|; over queries or
//                         tokens, whose errors are independent, the root of the sum of squares
//   d_p_ij                as such a sum over d of d_heads_i . v_j, and of d_weights_ij
//   delta_i = sum p d_p   e = sum_j e(p) A + p e(d_p) + u (sqrt(D) + 2) sum_j p A, A the sum of the
//                         magnitudes in d_p: the kernel may sum d_heads . heads
//   d_s = p (d_p - delta) e = e(p) |d_p - delta| + p (e(d_p) + e(delta) + 2u (|d_p| + |delta|))
#pragma once

#include <string>
#include <utility>
#include <vector>

#include <polyhead/multihead_attention.h>
#include <polyhead/tensor_view.h>

namespace polyhead {

// float64, of one shape.
struct GradientReference {
  Tensor value, budget;
};

struct ModuleBackwardReference {
  // In the caller's shapes; with respect to each argument alone, be they one tensor.
  GradientReference d_query, d_key, d_value;
  GradientReference d_attn_mask, d_key_padding_mask;  // of float masks, else undefined
  std::vector<std::pair<std::string, GradientReference>> parameters;  // as the state dict
};

// A forward and what its outputs are to be differentiated with. From scratch, attn_mask is the
// class's mask, and of the other options only need_weights is looked at.
struct ReferenceStep {
  ConstTensorView query, key, value;
  ForwardOptions options = {};
  DropoutDraw dropout = {};
  OutputGradients outputs = {};
};

ModuleBackwardReference module_backward_reference(const MultiheadAttention& module,
                                                  const ReferenceStep& step);
ModuleBackwardReference module_backward_reference(const FromScratchMultiHeadAttention& module,
                                                  const ReferenceStep& step);

}  // namespace polyhead
