#include "module/attention_parameters.h"

#include <algorithm>
#include <cstddef>

#include "module/require.h"

namespace polyhead {

AttentionParameters make_parameters(const AttentionSizes& sizes, bool bias) {
  const int64_t width = sizes.width(), kv_width = sizes.kv_width(), embed_dim = sizes.embed_dim;
  const auto zeros = [&](std::initializer_list<int64_t> shape) {
    return Tensor(sizes.dtype, shape);
  };
  AttentionParameters result;
  if (sizes.packed()) {
    result.in_proj_weight = zeros({3 * width, embed_dim});
  } else {
    result.q_proj_weight = zeros({width, embed_dim});
    result.k_proj_weight = zeros({kv_width, sizes.kdim});
    result.v_proj_weight = zeros({kv_width, sizes.vdim});
  }
  result.out_proj_weight = zeros({embed_dim, width});
  if (bias) {
    result.in_proj_bias = zeros({width + 2 * kv_width});
    result.out_proj_bias = zeros({embed_dim});
  }
  if (sizes.add_bias_kv) {
    result.bias_k = zeros({1, 1, kv_width});
    result.bias_v = zeros({1, 1, kv_width});
  }
  if (sizes.qk_norm) {
    result.q_norm_weight = zeros({sizes.head_dim});
    result.k_norm_weight = zeros({sizes.head_dim});
  }
  return result;
}

ParameterViews mha_state_dict(AttentionParameters& parameters) {
  ParameterViews views;
  const auto add = [&](const char* name, Tensor& tensor) {
    if (tensor.defined()) views.emplace_back(name, tensor.view());
  };
  add("in_proj_weight", parameters.in_proj_weight);
  add("q_proj_weight", parameters.q_proj_weight);
  add("k_proj_weight", parameters.k_proj_weight);
  add("v_proj_weight", parameters.v_proj_weight);
  add("in_proj_bias", parameters.in_proj_bias);
  add("bias_k", parameters.bias_k);
  add("bias_v", parameters.bias_v);
  add("out_proj.weight", parameters.out_proj_weight);
  add("out_proj.bias", parameters.out_proj_bias);
  add("q_norm.weight", parameters.q_norm_weight);
  add("k_norm.weight", parameters.k_norm_weight);
  return views;
}

ParameterViews mha_load_targets(AttentionParameters& parameters, const AttentionSizes& sizes) {
  ParameterViews views = mha_state_dict(parameters);
  const char* const names[] = {"q_proj_", "k_proj_", "v_proj_"};
  const auto add_parts = [&](Tensor& packed, const char* suffix) {
    for (int i = 0; packed.defined() && i < 3; ++i) {
      views.emplace_back(std::string(names[i]) + suffix,
                         part_of(packed.view(), sizes, static_cast<Projection>(i)));
    }
  };
  add_parts(parameters.in_proj_weight, "weight");
  add_parts(parameters.in_proj_bias, "bias");
  return views;
}

ParameterViews scratch_state_dict(AttentionParameters& parameters) {
  ParameterViews views;
  const int64_t width = parameters.in_proj_weight.size(0) / 3;
  const char* const names[] = {"q_linear", "k_linear", "v_linear"};
  for (int64_t i = 0; i < 3; ++i) {
    const std::string name = names[i];
    views.emplace_back(name + ".weight",
                       parameters.in_proj_weight.view().narrow(0, i * width, width));
    views.emplace_back(name + ".bias", parameters.in_proj_bias.view().narrow(0, i * width, width));
  }
  views.emplace_back("fc_out.weight", parameters.out_proj_weight.view());
  views.emplace_back("fc_out.bias", parameters.out_proj_bias.view());
  return views;
}

ParameterTargets targets_of(const ParameterViews& state_dict, const AttentionSizes& sizes) {
  ParameterTargets to;
  const auto parts_of = [&](const TensorView& packed) -> std::array<TensorView, 3> {
    return {part_of(packed, sizes, Projection::kQuery), part_of(packed, sizes, Projection::kKey),
            part_of(packed, sizes, Projection::kValue)};
  };
  auto &w = to.weight, &b = to.bias;
  const std::pair<const char*, TensorView*> places[] = {{"q_proj_weight", &w[0]},
                                                        {"k_proj_weight", &w[1]},
                                                        {"v_proj_weight", &w[2]},
                                                        {"q_linear.weight", &w[0]},
                                                        {"k_linear.weight", &w[1]},
                                                        {"v_linear.weight", &w[2]},
                                                        {"q_linear.bias", &b[0]},
                                                        {"k_linear.bias", &b[1]},
                                                        {"v_linear.bias", &b[2]},
                                                        {"bias_k", &to.bias_k},
                                                        {"bias_v", &to.bias_v},
                                                        {"out_proj.weight", &to.out_weight},
                                                        {"fc_out.weight", &to.out_weight},
                                                        {"out_proj.bias", &to.out_bias},
                                                        {"fc_out.bias", &to.out_bias},
                                                        {"q_norm.weight", &to.norm[0]},
                                                        {"k_norm.weight", &to.norm[1]}};
  for (const auto& [name, view] : state_dict) {
    if (name == "in_proj_weight") to.weight = parts_of(view);
    if (name == "in_proj_bias") to.bias = parts_of(view);
    for (const auto& [known, place] : places) {
      if (name == known) *place = view;
    }
  }
  return to;
}

std::vector<std::pair<std::string, ConstTensorView>> read_only(const ParameterViews& views) {
  return {views.begin(), views.end()};
}

namespace {

void swap_values(const TensorView& a, Tensor& b) {
  auto* bytes = static_cast<std::byte*>(a.data());
  const size_t count = static_cast<size_t>(a.numel()) * dtype_bytes(a.dtype());
  std::swap_ranges(bytes, bytes + count, static_cast<std::byte*>(b.data()));
}

}  // namespace

void assign_parameter(const ParameterViews& state_dict, const std::string& name,
                      const ConstTensorView& value, const char* function,
                      const std::function<void()>& repack) {
  const Require require(function);
  std::string names;
  for (const auto& [known, view] : state_dict) {
    names += (names.empty() ? "" : ", ") + known;
    if (known != name) continue;
    require.given(value, name.c_str());
    require.shape(value, name.c_str(), view.shape());
    require.dtype(value, name.c_str(), view.dtype());
    Tensor rows(value);  // row-major, as the parameter
    swap_values(view, rows);
    try {
      repack();
    } catch (...) {
      swap_values(view, rows);  // now it has what was there before
      throw;
    }
    return;
  }
  require.fail("name", "got \"" + name + "\"", "one of " + names);
}

}  // namespace polyhead
