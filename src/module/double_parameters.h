// A module's parameters as its references read them.
#pragma once

#include <polyhead/multihead_attention.h>
#include <polyhead/tensor_view.h>

namespace polyhead {

// The same numbers in float64, row-major; of nothing, nothing.
Tensor as_double(const ConstTensorView& view);

// The parameters in double, by role, whichever class they come from.
struct DoubleParameters {
  Tensor q_weight, k_weight, v_weight;      // [width, in], then [kv_width, in] twice
  Tensor out_weight;                        // [embed_dim, width]
  Tensor q_bias, k_bias, v_bias, out_bias;  // undefined without biases
  Tensor bias_k, bias_v;                    // [1, 1, kv_width]
  Tensor q_norm, k_norm;                    // [head_dim]
};

DoubleParameters double_parameters(const MultiheadAttention& module);
DoubleParameters double_parameters(const FromScratchMultiHeadAttention& module);

}  // namespace polyhead
