// A row of softmax, in two steps: exp(x - max) and its sum, then a factor.
//
// Sums in the order of row_sum.body.h; exp as the attention kernels compute it (simd/exp2.inc.h).
#pragma once

#include <cstddef>

namespace polyhead::nn {

template <class T>
struct SoftmaxSum {
  T max, sum;  // sum of exp(x - max)
};

template <class T>
struct SoftmaxKernel {
  // Also writes exp(x - max) to exps [width], unless that is null. exps may be x.
  SoftmaxSum<T> (*exps)(const T* x, size_t width, T* exps) noexcept;
  void (*scale)(T* row, size_t width, T factor) noexcept;
};

}  // namespace polyhead::nn
