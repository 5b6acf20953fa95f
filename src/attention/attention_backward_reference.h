// The op's gradients in double, in plain loops, for every option of the forward: the oracle of the
// backward kernels. Shapes as in AttentionCall.
#pragma once

#include <functional>
#include <vector>

#include <polyhead/tensor_view.h>
#include "attention/attention_call.h"

namespace polyhead {

// The loss's derivatives with respect to the forward's outputs; float32 or float64.
struct AttentionCotangents {
  ConstTensorView d_out;           // [B, H, L, Dv]
  ConstTensorView d_weights = {};  // in the shape of the call's weights; undefined: they are unused
};

// All float64.
struct ReferenceGradients {
  Tensor d_query;                     // [B, H, L, D]
  Tensor d_key, d_value;              // [B, Hkv, S, D], [B, Hkv, S, Dv]
  Tensor d_extra_key, d_extra_value;  // [Hkv, X, D], [Hkv, X, Dv]; not defined without columns
  std::vector<Tensor> d_masks;        // in the call's order and the mask's own shape, summed over
                                      // what it broadcasts over; defined for additive masks alone
  Tensor d_sinks;                     // [H]; not defined without sinks
};

// call.outputs is not looked at. A masked pair, and a row without visible keys, has gradient 0
// whatever its numbers are, under either EmptyRow; neither does the value of a dropped pair, whose
// score still has one.
ReferenceGradients attention_backward_reference(const AttentionCall& call,
                                                const AttentionCotangents& cotangents);

// In the shapes of a call's gradients.
ReferenceGradients zero_gradients(const AttentionCall& call);

// The gradients of a packed call, from those that `alone` has for each of its sequences.
ReferenceGradients gradients_of_sequences(
    const AttentionCall& call, const AttentionCotangents& cotangents,
    const std::function<ReferenceGradients(const AttentionCall&, const AttentionCotangents&)>&
        alone);

}  // namespace polyhead
