#include "nn/gelu.h"

#include <polyhead/nn/functions.h>
#include "nn/elementwise.h"
#include "nn/region.h"
#include "simd/regions.h"

#define POLYHEAD_KERNEL_BODY "nn/gelu.body.h"
#include "simd/for_each_isa.h"

namespace polyhead::nn {
namespace {

constexpr double kFlopsPerElement = 30;

template <class T>
GeluKernel<T> gelu_kernel(Isa isa) {
  return POLYHEAD_ON_ISA(isa, make_gelu_kernel<T>());
}

}  // namespace

Tensor gelu(const ConstTensorView& x) {
  Tensor y(x.dtype(), x.shape());
  gelu_into(x, y);
  return y;
}

void gelu_into(const ConstTensorView& x, const TensorView& y) {
  const Isa isa = isa_in_use();
  map_into("gelu", x, y, kFlopsPerElement, [isa]<class T>(const T* from, size_t count, T* to) {
    gelu_kernel<T>(isa).forward(from, count, to);
  });
}

void gelu_backward(const ConstTensorView& x, const ConstTensorView& d_y, const TensorView& d_x) {
  const Isa isa = isa_in_use();
  map_backward("gelu_backward", x, d_y, d_x, kFlopsPerElement,
               [isa]<class T>(const T* at, const T* from, size_t count, T* to) {
                 gelu_kernel<T>(isa).backward(at, from, count, to);
               });
}

}  // namespace polyhead::nn
