#include "kernels/head_rows.h"

#include <cmath>

#include "simd/regions.h"

#define POLYHEAD_KERNEL_BODY "kernels/head_rows.body.h"
#include "simd/for_each_isa.h"

namespace polyhead {

template <class T>
HeadRowsKernel<T> head_rows_kernel(Isa isa) {
  return POLYHEAD_ON_ISA(isa, make_head_rows_kernel<T>());
}

template HeadRowsKernel<float> head_rows_kernel(Isa);
template HeadRowsKernel<double> head_rows_kernel(Isa);

}  // namespace polyhead
