// The FMA rate that so many threads reach at once, right now.
#pragma once

#include <barrier>
#include <thread>
#include <vector>

#include "kernels/fma_peak.h"

namespace polyhead::bench {

// At least this long: shorter probes have read a third of the rate.
inline constexpr double kProbeSeconds = 2e-3;

// Sum of the threads' rates, GFLOP/s, all of them probing at the same time.
inline double fma_peak_of_threads(Isa isa, int threads, double seconds = kProbeSeconds) {
  if (threads == 1) return fma_peak_gflops(isa, seconds);
  std::vector<double> rates(static_cast<size_t>(threads));
  std::barrier start(threads);
  {
    std::vector<std::jthread> probes;
    for (double& rate : rates) {
      probes.emplace_back([&, isa, seconds] {
        start.arrive_and_wait();
        rate = fma_peak_gflops(isa, seconds);
      });
    }
  }
  double sum = 0;
  for (double rate : rates) sum += rate;
  return sum;
}

}  // namespace polyhead::bench
