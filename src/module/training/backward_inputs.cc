#include "module/training/backward_inputs.h"

#include <string>

#include "attention/call_checks.h"
#include "module/mask_views.h"
#include "module/projected_state.h"
#include "module/require.h"

namespace polyhead {
namespace {

class Checker {
 public:
  Checker(const AttentionSizes& sizes, const ForwardInputs& forward, const char* function)
      : sizes_(sizes), forward_(forward), require_(function) {}

  void outputs(const OutputGradients& given, BackwardTargets* targets) const {
    require_.given(given.d_out, "d_out");
    expect(given.d_out, "d_out", out_shape(forward_, sizes_));
    targets->d_out = batch_first(given.d_out, forward_);
    if (!given.d_weights.defined()) return;
    if (forward_.weights == WeightsMode::kNone) {
      require_.fail("d_weights", "given, but the forward returned no weights", "undefined");
    }
    expect(given.d_weights, "d_weights", weights_shape(forward_, sizes_, forward_.weights));
    targets->d_weights = forward_.batched ? given.d_weights : given.d_weights.unsqueezed(0);
  }

  void rows(const InputGradients& given, BackwardTargets* targets) const {
    targets->d_rows[0] = rows_of(given.d_query, "d_query", forward_.query);
    targets->d_rows[1] = rows_of(given.d_key, "d_key", forward_.key);
    targets->d_rows[2] = rows_of(given.d_value, "d_value", forward_.value);
  }

  void masks(const InputGradients& given, BackwardTargets* targets) const {
    const int64_t batch = forward_.batch();
    if (wants(given.d_key_padding_mask, "d_key_padding_mask", forward_.key_padding_mask)) {
      targets->d_masks[0] = padding_for_op(given.d_key_padding_mask, batch);
    }
    const size_t next = forward_.key_padding_mask.defined() ? 1 : 0;  // in the list of masks
    if (wants(given.d_attn_mask, "d_attn_mask", forward_.attn_mask)) {
      targets->d_masks[next] = forward_.aligns_mask
                                   ? scratch_mask_for_op(given.d_attn_mask)
                                   : attn_mask_for_op(given.d_attn_mask, batch, sizes_.num_heads);
    }
  }

  void parameters(const ParameterViews& state_dict, const ParameterViews& given) const {
    if (given.empty()) return;
    if (given.size() != state_dict.size()) {
      require_.fail("parameters", message("has ", given.size(), " gradients"),
                    message("empty, or ", state_dict.size(), ", as the state dict"));
    }
    for (size_t i = 0; i < given.size(); ++i) {
      const auto& [name, view] = given[i];
      const auto& [wanted, parameter] = state_dict[i];
      if (name != wanted) {
        require_.fail("parameters", message("\"", name, "\" is number ", i),
                      message("\"", wanted, "\": the state dict's, in its order"));
      }
      if (view.defined()) expect(view, name.c_str(), parameter.shape());
    }
  }

  // Gradients share no memory with what is read or with each other, but for gradients of inputs
  // that are one tensor.
  void memory(const BackwardArguments& arguments) const {
    const OutputGradients& d = arguments.outputs;
    for_each_gradient(arguments, [&](const TensorView& view, const char* name) {
      const auto fail = [&](const std::string& got, const char* need) {
        require_.fail(name, got, need);
      };
      check_separate(view,
                     {&forward_.query, &forward_.key, &forward_.value, &forward_.attn_mask,
                      &forward_.key_padding_mask, &d.d_out, &d.d_weights},
                     fail);
      bool is_earlier = true;
      for_each_gradient(arguments, [&](const TensorView& other, const char*) {
        is_earlier = is_earlier && &other != &view;
        const bool sum = is_row(other, arguments) && is_row(view, arguments);
        if (is_earlier && !(sum && same_tensor(view, other))) check_separate(view, {&other}, fail);
      });
    });
  }

 private:
  static bool is_row(const TensorView& view, const BackwardArguments& arguments) {
    const InputGradients& d = arguments.inputs;
    return &view == &d.d_query || &view == &d.d_key || &view == &d.d_value;
  }
  // use(view, name) for those that are wanted.
  template <class Use>
  static void for_each_gradient(const BackwardArguments& arguments, const Use& use) {
    const auto wanted = [&](const TensorView& view, const char* name) {
      if (view.defined()) use(view, name);
    };
    const InputGradients& d = arguments.inputs;
    wanted(d.d_query, "d_query");
    wanted(d.d_key, "d_key");
    wanted(d.d_value, "d_value");
    wanted(d.d_attn_mask, "d_attn_mask");
    wanted(d.d_key_padding_mask, "d_key_padding_mask");
    for (const auto& [name, view] : arguments.parameters) wanted(view, name.c_str());
  }

  void expect(const ConstTensorView& view, const char* name, Shape shape) const {
    require_.shape(view, name, shape);
    require_.dtype(view, name, sizes_.dtype);
  }

  // `x`: the forward's input, batch first.
  TensorView rows_of(const TensorView& given, const char* name, const ConstTensorView& x) const {
    if (!given.defined()) return {};
    expect(given, name, rows_shape(forward_, x.size(1), x.size(2)));
    return batch_first(given, forward_);
  }

  // Whether the gradient of the forward's `mask` is wanted.
  bool wants(const TensorView& given, const char* name, const ConstTensorView& mask) const {
    if (!given.defined()) return false;
    if (!mask.defined())
      require_.fail(name, "given, but the forward had no such mask", "undefined");
    if (mask.dtype() != DType::kFloat32 && mask.dtype() != DType::kFloat64) {
      require_.fail(name, message("given, but the mask is ", dtype_name(mask.dtype())),
                    "undefined: only float masks have a gradient");
    }
    expect(given, name, mask.shape());
    return true;
  }

  const AttentionSizes& sizes_;
  const ForwardInputs& forward_;
  Require require_;
};

}  // namespace

BackwardTargets check_backward(const AttentionSizes& sizes, const ForwardInputs& forward,
                               const ParameterViews& state_dict, const BackwardArguments& arguments,
                               const char* function) {
  const Checker checker(sizes, forward, function);
  BackwardTargets targets;
  checker.outputs(arguments.outputs, &targets);
  checker.rows(arguments.inputs, &targets);
  checker.masks(arguments.inputs, &targets);
  checker.parameters(state_dict, arguments.parameters);
  checker.memory(arguments);
  targets.parameters = targets_of(arguments.parameters, sizes);
  targets.mode = arguments.mode;
  return targets;
}

}  // namespace polyhead
