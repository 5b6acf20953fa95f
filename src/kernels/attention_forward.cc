#include "kernels/attention_forward.h"

#include <bit>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/checked_math.h"
#include "base/natural_log.h"

#define POLYHEAD_KERNEL_BODY "kernels/attention_forward.body.h"
#include "simd/for_each_isa.h"

namespace polyhead {

template <class T>
AttentionKernel<T> attention_kernel(Isa isa) {
#if defined(__x86_64__)
  if (isa == Isa::kAvx512) return avx512::make_attention_kernel<T>();
  if (isa == Isa::kAvx2) return avx2::make_attention_kernel<T>();
#endif
  static_cast<void>(isa);
  return baseline::make_attention_kernel<T>();
}

template <class T>
size_t attention_workspace_bytes(const AttentionTile<T>& shape, size_t max_rows) {
  size_t bytes;
  baseline::carve_scratch(shape, max_rows, nullptr, &bytes);
  return bytes;
}

template AttentionKernel<float> attention_kernel(Isa);
template AttentionKernel<double> attention_kernel(Isa);
template size_t attention_workspace_bytes(const AttentionTile<float>&, size_t);
template size_t attention_workspace_bytes(const AttentionTile<double>&, size_t);

}  // namespace polyhead
