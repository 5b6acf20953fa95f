#include "kernels/gemm.h"

#include "simd/regions.h"

#define POLYHEAD_KERNEL_BODY "kernels/gemm.body.h"
#include "simd/for_each_isa.h"

namespace polyhead {

template <class T>
GemmKernel<T> gemm_kernel(Isa isa) {
  return POLYHEAD_ON_ISA(isa, run_gemm_block<T>);
}

template <class T>
void pack_weight(const T* weight, ptrdiff_t row_stride, ptrdiff_t column_stride, size_t n, size_t k,
                 T* packed) {
  for (size_t panel = 0; panel < num_panels(n, kPanel<T>); ++panel) {
    T* to = packed + panel * kPanel<T> * k;
    for (size_t c = 0; c < kPanel<T>; ++c) {
      const size_t row = panel * kPanel<T> + c;
      const T* from = weight + static_cast<ptrdiff_t>(row < n ? row : 0) * row_stride;
      for (size_t i = 0; i < k; ++i) {
        to[i * kPanel<T> + c] = row < n ? from[static_cast<ptrdiff_t>(i) * column_stride] : T{0};
      }
    }
  }
}

template GemmKernel<float> gemm_kernel(Isa);
template GemmKernel<double> gemm_kernel(Isa);
template void pack_weight(const float*, ptrdiff_t, ptrdiff_t, size_t, size_t, float*);
template void pack_weight(const double*, ptrdiff_t, ptrdiff_t, size_t, size_t, double*);

}  // namespace polyhead
