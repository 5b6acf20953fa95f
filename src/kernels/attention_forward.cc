#include "kernels/attention_forward.h"

#include <cstring>
#include <limits>

#include "base/checked_math.h"
#include "base/natural_log.h"
#include "base/philox.h"
#include "simd/regions.h"

#define POLYHEAD_KERNEL_BODY "kernels/attention_forward.body.h"
#include "simd/for_each_isa.h"

namespace polyhead {

template <class T>
AttentionKernel<T> attention_kernel(Isa isa) {
  return POLYHEAD_ON_ISA(isa, make_attention_kernel<T>());
}

template AttentionKernel<float> attention_kernel(Isa);
template AttentionKernel<double> attention_kernel(Isa);

}  // namespace polyhead
