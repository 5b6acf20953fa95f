// The sizes and the parameters of an attention module, of either class.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <polyhead/tensor_view.h>
#include <polyhead/training.h>

namespace polyhead {

struct AttentionSizes {
  int64_t embed_dim = 0, num_heads = 0, head_dim = 0;
  int64_t kdim = 0, vdim = 0;
  bool add_bias_kv = false, add_zero_attn = false;
  DType dtype = DType::kFloat32;

  int64_t width() const { return num_heads * head_dim; }  // of a projected row, all heads
  int64_t num_extra() const { return add_bias_kv + add_zero_attn; }  // columns after the keys
  bool packed() const { return kdim == embed_dim && vdim == embed_dim; }
};

enum class Projection { kQuery, kKey, kValue };

// width = num_heads * head_dim. What a module has not is undefined. The from-scratch class holds
// its three linears packed as well: q_linear is rows [0, width) of in_proj_weight.
struct AttentionParameters {
  Tensor in_proj_weight;                               // [3 width, embed_dim]: rows q, k, v; or
  Tensor q_proj_weight, k_proj_weight, v_proj_weight;  // [width, embed_dim | kdim | vdim]
  Tensor in_proj_bias;                                 // [3 width]
  Tensor bias_k, bias_v;                               // [1, 1, width]
  Tensor out_proj_weight;                              // [embed_dim, width]
  Tensor out_proj_bias;                                // [embed_dim]

  // Rows of `count` projections from `first` on; more than one only of packed weights.
  ConstTensorView weight(Projection first, int count = 1) const;
  ConstTensorView bias(Projection first, int count = 1) const;  // undefined without biases
};

// Views of parameters, or of their gradients, by role, whichever class they belong to; undefined:
// not there.
struct ParameterTargets {
  std::array<TensorView, 3> weight;  // [width, in] of query, key, value
  std::array<TensorView, 3> bias;    // [width]
  TensorView bias_k, bias_v;         // [1, 1, width]
  TensorView out_weight, out_bias;   // [embed_dim, width], [embed_dim]
};
// From the names of a state dict of either class.
ParameterTargets targets_of(const ParameterViews& state_dict);

// All zero. Throws InvalidArgument if a shape does not fit.
AttentionParameters make_parameters(const AttentionSizes& sizes, bool bias);

// torch's names, in torch's order.
ParameterViews mha_state_dict(AttentionParameters& parameters);
// The same, and the parts of packed parameters: q_proj_weight, q_proj_bias, k_proj_weight, ...
ParameterViews mha_load_targets(AttentionParameters& parameters);
// q_linear, k_linear, v_linear, fc_out: .weight, .bias.
ParameterViews scratch_state_dict(AttentionParameters& parameters);

std::vector<std::pair<std::string, ConstTensorView>> read_only(const ParameterViews& views);

// Copies `value` into the parameter `name` and calls `repack`; if that fails, nothing has changed.
// Throws InvalidArgument, `function` leading the message.
void assign_parameter(
    const ParameterViews& state_dict, const std::string& name, const ConstTensorView& value,
    const char* function, const std::function<void()>& repack = [] {});

}  // namespace polyhead
