// Functions without parameters, forward and backward: GELU, ReLU, sums, cross-entropy.
//
// float32 or float64, row-major without gaps, one dtype and shape for all views of a call, which
// throws InvalidArgument where they differ. An output may be one of the inputs.
#pragma once

#include <cstdint>

#include <polyhead/tensor_view.h>

#pragma GCC visibility push(default)
namespace polyhead::nn {

// y = x * Phi(x), Phi the normal distribution: torch's gelu(approximate="none").
Tensor gelu(const ConstTensorView& x);
void gelu_into(const ConstTensorView& x, const TensorView& y);
// d_x = d_y * (Phi(x) + x * phi(x)), phi its density.
void gelu_backward(const ConstTensorView& x, const ConstTensorView& d_y, const TensorView& d_x);

// y = max(x, 0); NaN stays NaN.
Tensor relu(const ConstTensorView& x);
void relu_into(const ConstTensorView& x, const TensorView& y);
// d_x = x > 0 ? d_y : 0; what relu returned will do for x.
void relu_backward(const ConstTensorView& x, const ConstTensorView& d_y, const TensorView& d_x);

// sum = sum + x: residual connections, and the gradients of what is used twice.
void add_to(const TensorView& sum, const ConstTensorView& x);

// The mean over the tokens of -log softmax(logits)[target], tokens whose target is ignore_index
// left out; NaN if none is left. d_logits, if it is defined, becomes the gradient of that mean (0
// for the tokens left out); it may be logits.
//   logits [..., classes]  targets int64 [...], each in [0, classes) or ignore_index
double cross_entropy(const ConstTensorView& logits, const ConstTensorView& targets,
                     const TensorView& d_logits = {}, int64_t ignore_index = -100);

}  // namespace polyhead::nn
#pragma GCC visibility pop
