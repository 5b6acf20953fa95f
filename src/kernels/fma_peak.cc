#include "kernels/fma_peak.h"

#include <bit>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define POLYHEAD_KERNEL_BODY "kernels/fma_peak.body.h"
#include "simd/for_each_isa.h"

namespace polyhead {

double fma_peak_gflops(Isa isa, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr size_t kRounds = 20'000;
  double flops = 0, elapsed = 0;
  for (const Clock::time_point start = Clock::now(); elapsed < seconds;) {
#if defined(__x86_64__)
    if (isa == Isa::kAvx512) flops += avx512::fma_rounds(kRounds);
    if (isa == Isa::kAvx2) flops += avx2::fma_rounds(kRounds);
#endif
    if (isa == Isa::kBaseline) flops += baseline::fma_rounds(kRounds);
    elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  }
  return flops / elapsed * 1e-9;
}

}  // namespace polyhead
