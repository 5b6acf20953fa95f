#include "nn/gelu.h"

#include <polyhead/nn/functions.h>
#include "base/float_type.h"
#include "nn/checks.h"
#include "nn/elementwise.h"
#include "nn/region.h"
#include "simd/regions.h"

#define POLYHEAD_KERNEL_BODY "nn/gelu.body.h"
#include "simd/for_each_isa.h"

namespace polyhead::nn {
namespace {

constexpr double kFlopsPerElement = 30;

template <class T>
GeluKernel<T> gelu_kernel() {
  return POLYHEAD_ON_ISA(isa_in_use(), make_gelu_kernel<T>());
}

}  // namespace

Tensor gelu(const ConstTensorView& x) {
  Tensor y(x.dtype(), x.shape());
  gelu_into(x, y);
  return y;
}

void gelu_into(const ConstTensorView& x, const TensorView& y) {
  const Require require("gelu");
  require_float(require, x, "x");
  require_dense(require, x, "x");
  require_like(require, y, "y", x);
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const T* from = x.data_as<T>();
    T* to = y.data_as<T>();
    const GeluKernel<T> kernel = gelu_kernel<T>();
    for_each_piece(static_cast<size_t>(x.numel()), kFlopsPerElement,
                   [&](size_t i, size_t end) { kernel.forward(from + i, end - i, to + i); });
  });
}

void gelu_backward(const ConstTensorView& x, const ConstTensorView& d_y, const TensorView& d_x) {
  const Require require("gelu_backward");
  require_float(require, x, "x");
  require_dense(require, x, "x");
  require_like(require, d_y, "d_y", x);
  require_like(require, d_x, "d_x", x);
  with_float_type(x.dtype(), [&](auto type) {
    using T = decltype(type);
    const T *at = x.data_as<T>(), *from = d_y.data_as<T>();
    T* to = d_x.data_as<T>();
    const GeluKernel<T> kernel = gelu_kernel<T>();
    for_each_piece(static_cast<size_t>(x.numel()), kFlopsPerElement, [&](size_t i, size_t end) {
      kernel.backward(at + i, from + i, end - i, to + i);
    });
  });
}

}  // namespace polyhead::nn
