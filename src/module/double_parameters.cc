#include "module/double_parameters.h"

#include <string>
#include <utility>
#include <vector>

#include "module/forward_inputs.h"

namespace polyhead {

Tensor as_double(const ConstTensorView& view) {
  if (!view.defined()) return {};
  const Tensor rows(view);  // row-major
  if (rows.dtype() == DType::kFloat64) return rows;
  Tensor result(DType::kFloat64, rows.shape());
  for (int64_t i = 0; i < rows.numel(); ++i) {
    result.data_as<double>()[i] = static_cast<double>(rows.data_as<float>()[i]);
  }
  return result;
}

namespace {

using StateDict = std::vector<std::pair<std::string, ConstTensorView>>;

ConstTensorView find(const StateDict& state_dict, const std::string& name) {
  for (const auto& [known, view] : state_dict) {
    if (known == name) return view;
  }
  return {};
}

}  // namespace

DoubleParameters double_parameters(const MultiheadAttention& module) {
  const StateDict dict = module.state_dict();
  const AttentionSizes sizes = sizes_of(module.config());
  const ConstTensorView packed = find(dict, "in_proj_weight"), bias = find(dict, "in_proj_bias");
  const auto weight = [&](Projection of, const char* separate) {
    return as_double(packed.defined() ? part_of(packed, sizes, of) : find(dict, separate));
  };
  return {.q_weight = weight(Projection::kQuery, "q_proj_weight"),
          .k_weight = weight(Projection::kKey, "k_proj_weight"),
          .v_weight = weight(Projection::kValue, "v_proj_weight"),
          .out_weight = as_double(find(dict, "out_proj.weight")),
          .q_bias = as_double(part_of(bias, sizes, Projection::kQuery)),
          .k_bias = as_double(part_of(bias, sizes, Projection::kKey)),
          .v_bias = as_double(part_of(bias, sizes, Projection::kValue)),
          .out_bias = as_double(find(dict, "out_proj.bias")),
          .bias_k = as_double(find(dict, "bias_k")),
          .bias_v = as_double(find(dict, "bias_v")),
          .q_norm = as_double(find(dict, "q_norm.weight")),
          .k_norm = as_double(find(dict, "k_norm.weight"))};
}

DoubleParameters double_parameters(const FromScratchMultiHeadAttention& module) {
  const StateDict dict = module.state_dict();
  const auto get = [&](const char* name) { return as_double(find(dict, name)); };
  return {.q_weight = get("q_linear.weight"),
          .k_weight = get("k_linear.weight"),
          .v_weight = get("v_linear.weight"),
          .out_weight = get("fc_out.weight"),
          .q_bias = get("q_linear.bias"),
          .k_bias = get("k_linear.bias"),
          .v_bias = get("v_linear.bias"),
          .out_bias = get("fc_out.bias"),
          .bias_k = {},
          .bias_v = {},
          .q_norm = {},
          .k_norm = {}};
}

}  // namespace polyhead
