// What the compiler turns into vectors of the baseline by itself: ReLU, and sums.
#include <polyhead/nn/functions.h>
#include "base/float_type.h"
#include "nn/checks.h"
#include "nn/elementwise.h"

namespace polyhead::nn {

Tensor relu(const ConstTensorView& x) {
  Tensor y(x.dtype(), x.shape());
  relu_into(x, y);
  return y;
}

void relu_into(const ConstTensorView& x, const TensorView& y) {
  map_into("relu", x, y, 1, []<class T>(const T* from, size_t count, T* to) {
    for (size_t i = 0; i < count; ++i) to[i] = from[i] <= T{0} ? T{0} : from[i];  // false for NaN
  });
}

void relu_backward(const ConstTensorView& x, const ConstTensorView& d_y, const TensorView& d_x) {
  map_backward("relu_backward", x, d_y, d_x, 1,
               []<class T>(const T* at, const T* from, size_t count, T* to) {
                 for (size_t i = 0; i < count; ++i) to[i] = at[i] <= T{0} ? T{0} : from[i];
               });
}

void add_to(const TensorView& sum, const ConstTensorView& x) {
  const Require require("add_to");
  require_float(require, sum, "sum");
  require_dense(require, sum, "sum");
  require_like(require, x, "x", sum);
  with_float_type(sum.dtype(), [&](auto type) {
    using T = decltype(type);
    const T* from = x.data_as<T>();
    T* to = sum.data_as<T>();
    for_each_piece(static_cast<size_t>(sum.numel()), 1, [&](size_t i, size_t end) {
      for (; i < end; ++i) to[i] += from[i];
    });
  });
}

}  // namespace polyhead::nn
