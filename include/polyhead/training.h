// What a module's training step keeps between forward and backward, and where gradients go.
//
//   TrainingContext context;                               // one for each module
//   ParameterGradients gradients(layer.state_dict());
//   Tensor out = layer.forward(x, x, x, {}, &context).out;
//   ...                                                    // d_out, the loss's derivative in out
//   layer.backward(context, {.d_out = d_out}, {.d_query = d_x, .d_key = d_x, .d_value = d_x},
//                  gradients.views());
//   ...                                                    // new values into layer.parameters()
//   layer.repack();
//
// Gradients have the same bits for any number of threads and on every ISA with fused multiply-add.
// A masked pair of query and key has gradient 0 whatever its numbers are, and so has a row without
// visible keys: NaN there reaches nothing; under EmptyRow::kNan the output of such a row is NaN,
// and so is the gradient of the output projection's weight. NaN elsewhere is passed on, not hidden.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <polyhead/tensor_view.h>

namespace polyhead {
class ProjectedAttention;  // what is inside the modules: not for callers
}

#pragma GCC visibility push(default)
namespace polyhead {

// Which weights a forward drops: a function of seed and call and the weight's place alone.
struct DropoutDraw {
  uint64_t seed = 0;
  uint32_t call = 0;
  std::optional<double> p = {};  // in place of Config::dropout
};

// What one forward leaves for its backward: projected queries, keys and values, the heads' output
// and log-sum-exp, O((q_len + kv_len) * width) numbers; never the weights. The inputs and masks are
// not copied: they must stay as they are until backward has run. Used by one call at a time;
// reused, it allocates nothing for a shape seen before.
class TrainingContext {
 public:
  TrainingContext();
  TrainingContext(TrainingContext&&) noexcept;
  TrainingContext& operator=(TrainingContext&&) noexcept;
  ~TrainingContext();

  // Of the next forward, which then adds 1 to `call`: each draws anew, and a run that continues
  // with these numbers draws the same. Modules of one model need seeds of their own.
  DropoutDraw dropout = {};

 private:
  friend class ProjectedAttention;
  struct State;
  std::unique_ptr<State> state_;
};

// The derivatives of the loss with respect to what the forward returned, in its shapes.
struct OutputGradients {
  ConstTensorView d_out = {};
  ConstTensorView d_weights = {};  // undefined: the loss does not depend on them
};

// Where the gradients of the inputs go, in the shapes of the inputs, any strides; what is undefined
// is not computed. They are overwritten. d_query, d_key and d_value of one shape may be the same
// view, which then receives their sum: for self-attention one d_x three times, in one matrix
// product. Otherwise gradients, those of parameters too, share no memory with each other or with
// what backward reads: the inputs, the masks and OutputGradients.
struct InputGradients {
  TensorView d_query = {}, d_key = {}, d_value = {};
  TensorView d_attn_mask = {};  // of a float mask, in the module's dtype; from scratch: of its mask
  TensorView d_key_padding_mask = {};
};

enum class GradientMode { kOverwrite, kAccumulate };

// A state dict whose values can be written: parameters, or their gradients.
using ParameterViews = std::vector<std::pair<std::string, TensorView>>;

// Memory for the gradients of a state dict, zero at first.
class ParameterGradients {
 public:
  ParameterGradients() = default;
  explicit ParameterGradients(
      const std::vector<std::pair<std::string, ConstTensorView>>& state_dict);

  // One for each parameter, in the order of the state dict.
  const ParameterViews& views() const { return views_; }

 private:
  std::vector<Tensor> tensors_;
  ParameterViews views_;
};

}  // namespace polyhead
#pragma GCC visibility pop
