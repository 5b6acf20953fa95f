// How much memory attention takes on a long sequence, beside its inputs and outputs.
//
//   long_sequence [LEN = 32768] [THREADS = 2]
//
// A child process makes the tensors of 8 heads of 64, runs the op once and reports the largest
// resident set it ever had (VmHWM). From that the tensors' own bytes are subtracted; all the rest,
// the program itself included, must stay under 64 MiB. A few rows are compared with the double
// reference. A quadratic [L, S] matrix of one head alone would take 4 GiB.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>

#include <polyhead/runtime.h>
#include "bench/attention/problem.h"

namespace polyhead::bench {
namespace {

constexpr double kMiB = 1024.0 * 1024.0;
constexpr double kAllowedMiB = 64;

// VmHWM of this process.
double peak_resident_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("VmHWM:", 0) == 0) return std::strtod(line.c_str() + 6, nullptr) / 1024;
  }
  return -1;
}

// 0: right and within the allowance.
int measure(int64_t len, int threads) {
  set_num_threads(threads);
  const Cell cell{.batch = 1, .heads = 8, .len = len, .head_dim = 64};
  Problem problem(cell);
  const double tensors_mib = 4 * static_cast<double>(problem.query.numel()) * sizeof(float) / kMiB;
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  problem.run();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const double peak_mib = peak_resident_mib();
  const double extra_mib = peak_mib - tensors_mib;
  std::printf("%ld x %ld, 8 heads of 64, %d threads, %s: %.1f s, %.0f GFLOP/s\n",
              static_cast<long>(len), static_cast<long>(len), threads, isa().c_str(), seconds,
              useful_flops(cell) / seconds * 1e-9);
  std::printf("peak resident %.1f MiB, of it inputs and output %.1f MiB\n", peak_mib, tensors_mib);
  std::printf("above inputs and output: %.1f MiB, allowed %.0f MiB\n", extra_mib, kAllowedMiB);
  const std::string error = problem.find_error(2);
  if (!error.empty()) std::printf("wrong result: %s\n", error.c_str());
  return error.empty() && peak_mib > 0 && extra_mib < kAllowedMiB ? 0 : 1;
}

// In a process of its own, whose memory nothing else has touched.
int measure_in_child(int64_t len, int threads) {
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) return 4;
  if (child == 0) {
    const int result = measure(len, threads);
    std::fflush(nullptr);
    _exit(result);
  }
  int status = 0;
  if (waitpid(child, &status, 0) != child || !WIFEXITED(status)) return 4;
  return WEXITSTATUS(status);
}

}  // namespace
}  // namespace polyhead::bench

int main(int argc, char** argv) {
  const long len = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 32768;
  const long threads = argc > 2 ? std::strtol(argv[2], nullptr, 10) : 2;
  if (len < 1 || threads < 1 || threads > 1024) {
    std::fprintf(stderr, "usage: long_sequence [LEN] [THREADS]\n");
    return 2;
  }
  return polyhead::bench::measure_in_child(len, static_cast<int>(threads));
}
