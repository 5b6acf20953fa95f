#include "kernels/fma_peak.h"

#include <chrono>

#include "simd/regions.h"

#define POLYHEAD_KERNEL_BODY "kernels/fma_peak.body.h"
#include "simd/for_each_isa.h"

namespace polyhead {

double fma_peak_gflops(Isa isa, double seconds) {
  using Clock = std::chrono::steady_clock;
  constexpr size_t kRounds = 20'000;
  double flops = 0, elapsed = 0;
  for (const Clock::time_point start = Clock::now(); elapsed < seconds;) {
    flops += POLYHEAD_ON_ISA(isa, fma_rounds(kRounds));
    elapsed = std::chrono::duration<double>(Clock::now() - start).count();
  }
  return flops / elapsed * 1e-9;
}

}  // namespace polyhead
