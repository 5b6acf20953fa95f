#include "kernels/attention_backward.h"

#include <cstring>
#include <limits>

#include "base/checked_math.h"
#include "base/natural_log.h"
#include "base/philox.h"
#include "simd/regions.h"

#define POLYHEAD_KERNEL_BODY "kernels/attention_backward.body.h"
#include "simd/for_each_isa.h"

namespace polyhead {

template <class T>
BackwardKernel<T> backward_kernel(Isa isa) {
  return POLYHEAD_ON_ISA(isa, make_backward_kernel<T>());
}

template <class T>
size_t backward_workspace_bytes(const BackwardTile<T>& shape, size_t lanes) {
  size_t bytes;
  baseline::carve_backward(shape.in, lanes, nullptr, &bytes);
  return bytes;
}

template BackwardKernel<float> backward_kernel(Isa);
template BackwardKernel<double> backward_kernel(Isa);
template size_t backward_workspace_bytes(const BackwardTile<float>&, size_t);
template size_t backward_workspace_bytes(const BackwardTile<double>&, size_t);

}  // namespace polyhead
