// How much memory attention takes on a long sequence, beside its inputs and outputs.
//
//   long_sequence [LEN = 32768] [THREADS = 2]
//
// A child process makes the tensors of 8 heads of 64, runs the op once and reports the largest
// resident set it ever had. From that the tensors' own bytes are subtracted; all the rest, the
// program itself included, must stay under 64 MiB. A few rows are compared with the double
// reference. A quadratic [L, S] matrix of one head alone would take 4 GiB.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <polyhead/runtime.h>
#include "bench/attention/problem.h"
#include "bench/memory/resident.h"

namespace polyhead::bench {
namespace {

constexpr double kAllowedMiB = 64;

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
  std::printf("%ld x %ld, 8 heads of 64, %d threads, %s: %.1f s, %.0f GFLOP/s\n",
              static_cast<long>(len), static_cast<long>(len), threads, isa().c_str(), seconds,
              useful_flops(cell) / seconds * 1e-9);
  const bool small = report_resident("inputs and output", tensors_mib, kAllowedMiB);
  const std::string error = problem.find_error(2);
  if (!error.empty()) std::printf("wrong result: %s\n", error.c_str());
  return error.empty() && small ? 0 : 1;
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
  using namespace polyhead::bench;
  return run_in_child([=] { return measure(len, static_cast<int>(threads)); });
}
