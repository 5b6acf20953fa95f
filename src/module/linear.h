// y = x . weight^T + bias, the weight packed once for the vector kernels.
//
// Each element of y is one chain of fused multiply-adds over the input features in order, then the
// bias: the same bits for any number of rows and threads, and on every ISA that has them.
#pragma once

#include <cstddef>

#include <polyhead/tensor_view.h>
#include "base/workspace.h"

namespace polyhead {

class PackedLinear {
 public:
  PackedLinear() = default;
  // weight [out_features, in_features], any strides; bias [out_features] or undefined. Copies both.
  PackedLinear(const ConstTensorView& weight, const ConstTensorView& bias);

  // Into the memory that is there if the shapes are the same: then nothing can fail half way.
  void assign(const ConstTensorView& weight, const ConstTensorView& bias);

  int64_t in_features() const { return in_features_; }
  int64_t out_features() const { return out_features_; }

  // x [batch, len, in_features] -> out [batch, len, columns], or, by heads, [batch, groups, len,
  // columns of a group]: the columns of y from `first` on. Any strides, the dtype of the weight;
  // shapes are the caller's to check. Runs on the pool; allocates nothing.
  void run(const ConstTensorView& x, const TensorView& out, int64_t first = 0) const;

 private:
  int64_t in_features_ = 0, out_features_ = 0;
  DType dtype_ = DType::kFloat32;
  AlignedBytes packed_;  // [panels, in_features, panel]
  AlignedBytes bias_;    // [panels * panel]
};

}  // namespace polyhead
