// The sizes and the parameters of an attention module, of either class.
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include <polyhead/rope.h>
#include <polyhead/tensor_view.h>
#include <polyhead/training.h>

namespace polyhead {

enum class Projection { kQuery, kKey, kValue };

struct AttentionSizes {
  int64_t embed_dim = 0, num_heads = 0, num_kv_heads = 0, head_dim = 0;
  int64_t kdim = 0, vdim = 0;
  bool add_bias_kv = false, add_zero_attn = false;
  DType dtype = DType::kFloat32;
  bool qk_norm = false;
  double qk_norm_eps = 0;
  Rope rope = {};

  bool rotates() const { return rope.pairs != RopePairs::kNone; }
  // Whether anything stands between the projections of query and key and the scores.
  bool transforms() const { return qk_norm || rotates(); }
  // Of a projected row: all heads of query; of key, and of value.
  int64_t width() const { return num_heads * head_dim; }
  int64_t kv_width() const { return num_kv_heads * head_dim; }
  // Where a projection begins in rows of all three, and how much of them `count` projections are.
  int64_t begin(int projection) const {
    return projection == 0 ? 0 : width() + (projection - 1) * kv_width();
  }
  int64_t width_of(int first, int count) const { return begin(first + count) - begin(first); }
  int64_t heads_of(int projection) const { return projection == 0 ? num_heads : num_kv_heads; }
  int64_t kv_head(int64_t head) const { return head / (num_heads / num_kv_heads); }

  int64_t num_extra() const { return add_bias_kv + add_zero_attn; }  // columns after the keys
  bool packed() const {
    return kdim == embed_dim && vdim == embed_dim && num_kv_heads == num_heads;
  }
};

// width = num_heads * head_dim, kv_width = num_kv_heads * head_dim. What a module has not is
// undefined. The from-scratch class holds its three linears packed as well: q_linear is rows
// [0, width) of in_proj_weight.
struct AttentionParameters {
  Tensor in_proj_weight;                // [3 width, embed_dim]: rows q, k, v; or
  Tensor q_proj_weight;                 // [width, embed_dim]
  Tensor k_proj_weight, v_proj_weight;  // [kv_width, kdim | vdim]
  Tensor in_proj_bias;                  // [width + 2 kv_width]
  Tensor bias_k, bias_v;                // [1, 1, kv_width]
  Tensor out_proj_weight;               // [embed_dim, width]
  Tensor out_proj_bias;                 // [embed_dim]
  Tensor q_norm_weight, k_norm_weight;  // [head_dim]

  const Tensor& separate_weight(Projection of) const {
    if (of == Projection::kQuery) return q_proj_weight;
    return of == Projection::kKey ? k_proj_weight : v_proj_weight;
  }
};

// Rows, of those of all three projections in `packed`, of one. Of nothing, nothing.
template <class View>
View part_of(const View& packed, const AttentionSizes& sizes, Projection of) {
  const int part = static_cast<int>(of);
  if (!packed.defined()) return {};
  return packed.narrow(0, sizes.begin(part), sizes.width_of(part, 1));
}

// Views of parameters, or of their gradients, by role, whichever class they belong to; undefined:
// not there.
struct ParameterTargets {
  std::array<TensorView, 3> weight;  // [width | kv_width, in] of query, key, value
  std::array<TensorView, 3> bias;    // [width | kv_width]
  TensorView bias_k, bias_v;         // [1, 1, kv_width]
  TensorView out_weight, out_bias;   // [embed_dim, width], [embed_dim]
  std::array<TensorView, 2> norm;    // [head_dim] of query, of key
};
// From the names of a state dict of either class.
ParameterTargets targets_of(const ParameterViews& state_dict, const AttentionSizes& sizes);

// All zero. Throws InvalidArgument if a shape does not fit.
AttentionParameters make_parameters(const AttentionSizes& sizes, bool bias);

// torch's names, in torch's order.
ParameterViews mha_state_dict(AttentionParameters& parameters);
// The same, and the parts of packed parameters: q_proj_weight, q_proj_bias, k_proj_weight, ...
ParameterViews mha_load_targets(AttentionParameters& parameters, const AttentionSizes& sizes);
// q_linear, k_linear, v_linear, fc_out: .weight, .bias.
ParameterViews scratch_state_dict(AttentionParameters& parameters);

std::vector<std::pair<std::string, ConstTensorView>> read_only(const ParameterViews& views);

// Copies `value` into the parameter `name` and calls `repack`; if that fails, nothing has changed.
// Throws InvalidArgument, `function` leading the message.
void assign_parameter(
    const ParameterViews& state_dict, const std::string& name, const ConstTensorView& value,
    const char* function, const std::function<void()>& repack = [] {});

}  // namespace polyhead
