// A linear layer, y = x . weight^T + bias, and its gradients, on weights packed for the vector
// kernels.
//
//   PackedLinear linear(weight, bias);             // [out_features, in_features], [out_features]
//   linear.run(x, y);                              // [batch, len, in] -> [batch, len, out]
//   linear.input_gradient(d_y, d_x);               // d_x = d_y . weight
//   linear_weight_gradient(x, d_y, d_weight, d_bias);  // d_weight = d_y^T . x
//   linear.assign(weight, bias);                   // after the step of an optimiser
//
// Operands are [batch, len, features], [rows, features], or, by heads, [batch, heads, len,
// head_dim] with features = heads * head_dim; any strides, the dtype of the weight (float32 or
// float64). Outputs share no memory with inputs or each other. A row is one index of batch and len.
//
// Each number is one chain of fused multiply-adds in order, never split: over the input features,
// then the bias; over the rows of the weight; over the rows of x. So its bits do not depend on
// threads or instruction set (of those that have the fused ones), nor, but for the weight's
// gradient, on the other rows.
#pragma once

#include <cstdint>
#include <memory>

#include <polyhead/tensor_view.h>

#pragma GCC visibility push(default)
namespace polyhead {

// Const functions are safe from many threads. What was moved from, or made without a weight, may
// only be destroyed or assigned to.
class PackedLinear {
 public:
  PackedLinear();
  // weight [out_features, in_features], bias [out_features] or undefined. Copies both. Throws
  // InvalidArgument, as every function here, for shapes or dtypes that do not fit.
  PackedLinear(const ConstTensorView& weight, const ConstTensorView& bias);

  // Other values, for the next call of run and of input_gradient. Into the memory that is there if
  // shapes and dtype are the same: then nothing can fail half way.
  void assign(const ConstTensorView& weight, const ConstTensorView& bias);

  int64_t in_features() const;
  int64_t out_features() const;
  DType dtype() const;

  // x [batch, len, in_features] -> out [batch, len, columns]: the columns of y from `first` on.
  // Allocates nothing.
  void run(const ConstTensorView& x, const TensorView& out, int64_t first = 0) const;

  // d_x = d_y . weight: d_y [batch, len, columns] stands for the columns of y from `first` on,
  // d_x [batch, len, in_features] is overwritten. The first call packs the weight a second time
  // (std::bad_alloc leaves d_x untouched); from then on assign keeps both.
  void input_gradient(const ConstTensorView& d_y, const TensorView& d_x, int64_t first = 0) const;
  // That packing alone, so that later calls cannot fail for memory.
  void prepare_input_gradient() const;

  PackedLinear(PackedLinear&&) noexcept;
  PackedLinear& operator=(PackedLinear&&) noexcept;
  ~PackedLinear();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// d_weight [out_features, in_features] = d_y^T . x and d_bias [out_features] = the sum of d_y over
// its rows, in order; undefined: not wanted. With `accumulate` the finished sum is added to what is
// there, otherwise it is overwritten. Scratch memory, kept per thread: 1024 rows of x and d_y, and
// a weight's worth if there are more rows.
void linear_weight_gradient(const ConstTensorView& x, const ConstTensorView& d_y,
                            const TensorView& d_weight, const TensorView& d_bias = {},
                            bool accumulate = false);

}  // namespace polyhead
#pragma GCC visibility pop
