// The ladder of attention_forward: every rung is proved against the double reference, then timed.
//
//   attention_ladder [HEADS = 4] [LEN = 512] [HEAD_DIM = 64]
//
// One thread, no masks. Rungs are visited in a new random order in each of 9 rounds, an FMA probe
// before each. Printed are the median time, and the fastest one's share of the best probe, which
// is what neighbours on the machine disturb least.
// README.md says what each rung is, what it brought and whether it was kept.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include <polyhead/runtime.h>
#include "bench/attention/problem.h"
#include "bench/fma_probe.h"
#include "bench/ladder/rungs.h"

namespace polyhead::bench {
namespace {

constexpr int kRounds = 9;

struct Rung {
  const char* name;
  std::function<void(Problem&)> run;
  std::vector<double> seconds = {};
};

// Calls rung(head) for each head of the problem.
template <class F>
std::function<void(Problem&)> each_head(F rung) {
  return [rung](Problem& problem) {
    const auto size = static_cast<size_t>(problem.cell.len * problem.cell.head_dim);
    const auto heads = static_cast<size_t>(problem.cell.batch * problem.cell.heads);
    for (size_t h = 0; h < heads; ++h) {
      rung(ladder::OneHead{
          problem.query.data_as<float>() + h * size, problem.key.data_as<float>() + h * size,
          problem.value.data_as<float>() + h * size, problem.out.data_as<float>() + h * size,
          static_cast<size_t>(problem.cell.len), static_cast<size_t>(problem.cell.head_dim)});
    }
  };
}

std::vector<Rung> rungs() {
  return {{"v1 plain loops, a row of scores", each_head(ladder::plain_loops)},
          {"v2 streamed in blocks of 64 keys", each_head(ladder::streamed)},
          {"v3 lanes are queries, log2 units",
           each_head([](const ladder::OneHead& head) { ladder::lanes(active_isa(), head); })},
          {"v4 the product's kernel", [](Problem& problem) { problem.run(); }}};
}

bool prove(Rung& rung, Problem& problem) {
  std::fill_n(problem.out.data_as<float>(), problem.out.numel(), 0.0F);
  rung.run(problem);
  const std::string error = problem.find_error();
  if (!error.empty()) std::printf("%s: wrong: %s\n", rung.name, error.c_str());
  return error.empty();
}

double timed(const Rung& rung, Problem& problem) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  rung.run(problem);
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

int climb(const Cell& cell) {
  set_num_threads(1);
  Problem problem(cell);
  std::vector<Rung> all = rungs();
  for (Rung& rung : all) {
    if (!prove(rung, problem)) return 1;
  }
  std::vector<size_t> order(all.size());
  for (size_t n = 0; n < order.size(); ++n) order[n] = n;
  std::mt19937 random{std::random_device{}()};
  double peak = 0;
  for (int round = 0; round < kRounds; ++round) {
    std::shuffle(order.begin(), order.end(), random);
    for (size_t n : order) {
      peak = std::max(peak, fma_peak_of_threads(active_isa(), 1));
      all[n].seconds.push_back(timed(all[n], problem));
    }
  }
  std::printf("%ld heads, %ld queries and keys, head size %ld, %s, 1 thread\n",
              static_cast<long>(cell.heads), static_cast<long>(cell.len),
              static_cast<long>(cell.head_dim), isa().c_str());
  const double gflop = useful_flops(cell) * 1e-9;
  for (const Rung& rung : all) {
    const double fastest = *std::min_element(rung.seconds.begin(), rung.seconds.end());
    std::printf("%-34s %9.3f ms, at best %6.1f GFLOP/s, %5.1f %% of peak\n", rung.name,
                median(rung.seconds) * 1e3, gflop / fastest, gflop / fastest / peak * 100);
  }
  return 0;
}

long argument(int argc, char** argv, int n, long otherwise) {
  return argc > n ? std::strtol(argv[n], nullptr, 10) : otherwise;
}

}  // namespace
}  // namespace polyhead::bench

int main(int argc, char** argv) {
  using namespace polyhead::bench;
  Cell cell;
  cell.heads = argument(argc, argv, 1, 4);
  cell.len = argument(argc, argv, 2, 512);
  cell.head_dim = argument(argc, argv, 3, 64);
  if (cell.heads < 1 || cell.len < 8 || cell.len % 8 != 0 || cell.head_dim < 8 ||
      cell.head_dim % 8 != 0 || cell.head_dim > 128) {
    std::fprintf(stderr,
                 "usage: attention_ladder [HEADS] [LEN] [HEAD_DIM], multiples of 8, "
                 "head size up to 128\n");
    return 2;
  }
  return climb(cell);
}
