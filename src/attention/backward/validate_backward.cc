// All checks of the backward, before any gradient is touched.
#include <algorithm>
#include <string>

#include "attention/attention_backward.h"
#include "attention/call_checks.h"
#include "base/message.h"

namespace polyhead {
namespace {

class Checker : private CallChecks {
 public:
  Checker(const BackwardCall& backward, const char* function)
      : CallChecks(backward.call, function), backward_(backward), call_(backward.call) {}

  void run() const {
    rows(backward_.inputs.out, "out", "v_head_dim", call_.v_head_dim());
    lse(backward_.inputs.lse, "lse");
    if (backward_.inputs.lse_rest.defined()) lse(backward_.inputs.lse_rest, "lse_rest");
    rows(backward_.inputs.d_out, "d_out", "v_head_dim", call_.v_head_dim());
    const ConstTensorView& d_weights = backward_.inputs.d_weights;
    if (d_weights.defined()) {
      if (call_.weights_mode == WeightsMode::kNone) {
        fail("d_weights", "given, with WeightsMode::kNone", "undefined");
      }
      weights(d_weights, "d_weights");
    }
    same_shape(backward_.d_query, "d_query", call_.query);
    same_shape(backward_.d_key, "d_key", call_.key);
    same_shape(backward_.d_value, "d_value", call_.value);
    same_shape(backward_.d_extra_key, "d_extra_key", call_.extra_key);
    same_shape(backward_.d_extra_value, "d_extra_value", call_.extra_value);
    if (backward_.d_sinks.defined() && !call_.sinks.defined()) {
      fail("d_sinks", "given, without sinks", "undefined");
    }
    same_shape(backward_.d_sinks, "d_sinks", call_.sinks);
    masks();
  }

 private:
  void same_shape(const TensorView& view, const std::string& name,
                  const ConstTensorView& like) const {
    if (!view.defined()) return;
    tensor(view, name.c_str(), like.rank());
    if (!std::ranges::equal(view.shape(), like.shape())) {
      fail(name, "shape is " + view.shape_string(), like.shape_string());
    }
    apart(view, name);
  }

  void masks() const {
    const size_t count = backward_.d_masks.size();
    if (count != 0 && count != call_.masks.size()) {
      fail("d_masks", message("got ", count, " tensors"),
           message("none, or one for each of ", call_.masks.size(), " masks"));
    }
    for (size_t i = 0; i < count; ++i) {
      const std::string name = message("d_masks[", i, "]");
      if (!backward_.d_masks[i].defined()) continue;
      const Mask& mask = call_.masks[i];
      const DType dtype =
          mask.kind() == Mask::Kind::kAdditive ? mask.tensor().dtype() : DType::kBool;
      if (dtype != DType::kFloat32 && dtype != DType::kFloat64) {
        fail(name, "given", "undefined: the mask is not an additive one of a floating type");
      }
      same_shape(backward_.d_masks[i], name, mask.tensor());
    }
  }

  // From what is read, and from the other gradients.
  void apart(const ConstTensorView& view, const std::string& name) const {
    apart_from_inputs(view, name);
    separate(view, name,
             {&backward_.inputs.out, &backward_.inputs.lse, &backward_.inputs.lse_rest,
              &backward_.inputs.d_out, &backward_.inputs.d_weights});
    const TensorView* gradients[] = {&backward_.d_query,       &backward_.d_key,
                                     &backward_.d_value,       &backward_.d_extra_key,
                                     &backward_.d_extra_value, &backward_.d_sinks};
    for (const TensorView* other : gradients) separate(view, name, {other});
    for (const TensorView& other : backward_.d_masks) separate(view, name, {&other});
  }

  const BackwardCall& backward_;
  const AttentionCall& call_;
};

}  // namespace

void validate(const BackwardCall& backward, const char* function) {
  validate_inputs(backward.call, function);
  Checker(backward, function).run();
}

}  // namespace polyhead
