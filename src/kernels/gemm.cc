#include "kernels/gemm.h"

#include "simd/regions.h"

#define POLYHEAD_KERNEL_BODY "kernels/gemm.body.h"
#include "simd/for_each_isa.h"

namespace polyhead {

template <class T>
GemmKernel<T> gemm_kernel(Isa isa) {
  return POLYHEAD_ON_ISA(isa, make_gemm_kernel<T>());
}

template GemmKernel<float> gemm_kernel(Isa);
template GemmKernel<double> gemm_kernel(Isa);

}  // namespace polyhead
