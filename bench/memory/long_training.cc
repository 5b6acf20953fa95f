// How much memory a forward and a backward take on a long sequence, beside inputs, outputs and
// gradients.
//
//   long_training [LEN = 16384] [THREADS = 2]
//
// A child process makes the tensors of 8 heads of 64 and runs both once; what it had resident above
// its tensors, the program itself included, must stay under 100 MiB. A few rows of each gradient
// are computed again from a part of the call: a row of d_query from its own query alone, rows of
// d_key and d_value from their own keys alone. The bits must be the same.
#include <chrono>
#include <cstdio>
#include <cstdlib>

#include <polyhead/attention.h>
#include <polyhead/runtime.h>
#include "bench/attention/problem.h"
#include "bench/memory/resident.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/random.h"

namespace polyhead::bench {
namespace {

constexpr double kAllowedMiB = 100;
constexpr int64_t kHeads = 8, kHeadDim = 64, kRows = 3;

Tensor normal(int64_t len, uint64_t seed) {
  oracle::Random random(seed);
  Tensor tensor(DType::kFloat32, {1, kHeads, len, kHeadDim});
  oracle::fill_with(tensor.view(), [&](const oracle::Index&) { return random.normal(); });
  return tensor;
}

struct Training {
  explicit Training(int64_t len)
      : query(normal(len, 1)), key(normal(len, 2)), value(normal(len, 3)), d_out(normal(len, 4)) {}

  void run() {
    attention_forward(query, key, value, {}, {.out = out, .lse = lse});
    attention_backward(query, key, value, {}, {.out = out, .lse = lse, .d_out = d_out},
                       {d_query, d_key, d_value});
  }
  double mib() const {
    return static_cast<double>(8 * query.numel() + lse.numel()) * sizeof(float) / kMiB;
  }
  bool same_queries(int64_t row) const;
  bool same_keys(int64_t row) const;

  Tensor query, key, value, d_out;  // [1, H, L, D]
  Tensor out{DType::kFloat32, query.shape()}, lse{DType::kFloat32, query.shape().first(3)};
  Tensor d_query{DType::kFloat32, query.shape()}, d_key{DType::kFloat32, query.shape()},
      d_value{DType::kFloat32, query.shape()};
};

bool Training::same_queries(int64_t row) const {
  const auto rows = [&](const Tensor& tensor) { return tensor.view().narrow(2, row, kRows); };
  Tensor again(DType::kFloat32, {1, kHeads, kRows, kHeadDim});
  attention_backward(rows(query), key, value, {},
                     {.out = rows(out), .lse = rows(lse), .d_out = rows(d_out)},
                     {.d_query = again});
  return oracle::compare_bits(again, rows(d_query)).ok;
}

bool Training::same_keys(int64_t row) const {
  const auto rows = [&](const Tensor& tensor) { return tensor.view().narrow(2, row, kRows); };
  Tensor again(DType::kFloat32, {1, kHeads, kRows, kHeadDim}), again_value(again);
  attention_backward(query, rows(key), rows(value), {}, {.out = out, .lse = lse, .d_out = d_out},
                     {.d_key = again, .d_value = again_value});
  return oracle::compare_bits(again, rows(d_key)).ok &&
         oracle::compare_bits(again_value, rows(d_value)).ok;
}

// 0: right and within the allowance.
int measure(int64_t len, int threads) {
  set_num_threads(threads);
  Training training(len);
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  training.run();
  const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
  const double flops = 3.5 * useful_flops({.heads = kHeads, .len = len, .head_dim = kHeadDim});
  std::printf("%ld x %ld, 8 heads of 64, %d threads, %s: %.1f s, %.0f GFLOP/s\n",
              static_cast<long>(len), static_cast<long>(len), threads, isa().c_str(), seconds,
              flops / seconds * 1e-9);
  const bool small = report_resident("inputs, outputs and gradients", training.mib(), kAllowedMiB);
  bool same = true;
  for (int64_t row : {int64_t{0}, len / 2 + 1, len - kRows}) {
    same = same && training.same_queries(row) && training.same_keys(row);
  }
  if (!same) std::printf("wrong result: a part of the call gives other bits\n");
  return same && small ? 0 : 1;
}

}  // namespace
}  // namespace polyhead::bench

int main(int argc, char** argv) {
  const long len = argc > 1 ? std::strtol(argv[1], nullptr, 10) : 16384;
  const long threads = argc > 2 ? std::strtol(argv[2], nullptr, 10) : 2;
  if (len < 3 || threads < 1 || threads > 1024) {
    std::fprintf(stderr, "usage: long_training [LEN] [THREADS]\n");
    return 2;
  }
  using namespace polyhead::bench;
  return run_in_child([=] { return measure(len, static_cast<int>(threads)); });
}
