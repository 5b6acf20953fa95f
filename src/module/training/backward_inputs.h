// The checks of a module's backward, and what they leave: batch-first views.
#pragma once

#include <polyhead/training.h>
#include "module/attention_parameters.h"
#include "module/forward_inputs.h"
#include "module/projected_attention.h"

namespace polyhead {

// What a caller gives a backward, of either class.
struct BackwardArguments {
  const OutputGradients& outputs;
  const InputGradients& inputs;
  const ParameterViews& parameters;
  GradientMode mode;
};

// `forward`: the inputs of the forward. `state_dict`: the module's. Throws InvalidArgument,
// `function` leading the message.
BackwardTargets check_backward(const AttentionSizes& sizes, const ForwardInputs& forward,
                               const ParameterViews& state_dict, const BackwardArguments& arguments,
                               const char* function);

}  // namespace polyhead
