// What a call costs that leaves work out, or has a function of its own in it, beside the call that
// it is measured by.
//
//   structure [THREADS = 1] [ROUNDS = 9]
//
// float32, 8 heads of 64. A line each: name, milliseconds of the one and of the other, and the
// median of the rounds' ratios, tabs between. The two take turns. On one thread it is the
// processor's time, which neighbours on the machine do not touch. Every answer is compared with the
// double reference, or bit for bit with one that was, before its time counts.
#include <time.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <stdexcept>
#include <string>
#include <vector>

#include <polyhead/attention.h>
#include <polyhead/runtime.h>
#include "attention/attention_call.h"
#include "attention/attention_reference.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/random.h"
#include "testing/tolerance.h"

namespace polyhead::bench {
namespace {

constexpr int64_t kHeads = 8, kHeadDim = 64;

struct Operands {
  int64_t len;
  Tensor query, key, value, out;  // [1, H, L, D]

  explicit Operands(int64_t length)
      : len(length), query(normal(length, 1)), key(normal(length, 2)), value(normal(length, 3)) {
    out = Tensor(DType::kFloat32, query.shape());
  }

  void run(const AttentionOptions& options) {
    attention_forward(query, key, value, options, {.out = out});
  }

 private:
  static Tensor normal(int64_t length, uint64_t seed) {
    oracle::Random random(seed);
    Tensor tensor(DType::kFloat32, {1, kHeads, length, kHeadDim});
    oracle::fill_with(tensor.view(), [&](const oracle::Index&) { return random.normal(); });
    return tensor;
  }
};

// As row `row` says it when it is query 0.
Mask seen_from(const Mask& mask, int64_t row) {
  if (mask.kind() == Mask::Kind::kCausal) return Mask::causal(row);
  if (mask.kind() == Mask::Kind::kAlibi) return Mask::alibi(mask.tensor(), row);
  return Mask::window(mask.left(), mask.right(), row);
}

// Throws unless some rows of x.out are what attention under these masks is.
void check(const Operands& x, const std::vector<Mask>& masks) {
  for (int64_t row : {int64_t{0}, x.len / 2, x.len - 1}) {
    AttentionOptions options;
    for (const Mask& mask : masks) options.masks.push_back(seen_from(mask, row));
    const AttentionCall call = call_of(x.query.view().narrow(2, row, 1), x.key, x.value, options);
    const AttentionReference truth = attention_forward_reference(call, {.budget = true});
    const oracle::Comparison verdict =
        oracle::compare_within_budget(x.out.view().narrow(2, row, 1), truth.out, truth.out_budget,
                                      oracle::allowed_use(DType::kFloat32));
    if (!verdict.ok) throw std::runtime_error("a wrong answer: " + verdict.report);
  }
}

double now() {
  timespec time;
  clock_gettime(num_threads() == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) * 1e3 + static_cast<double>(time.tv_nsec) * 1e-6;
}

double milliseconds(const std::function<void()>& body) {
  const double start = now();
  body();
  return now() - start;
}

double median(std::vector<double> numbers) {
  std::sort(numbers.begin(), numbers.end());
  return numbers[numbers.size() / 2];
}

// Both have run before, when they were checked.
void print_pair(const char* name, int rounds, const std::function<void()>& one,
                const std::function<void()>& other) {
  std::vector<double> ones, others, ratios;
  for (int round = 0; round < rounds; ++round) {
    ones.push_back(milliseconds(one));
    others.push_back(milliseconds(other));
    ratios.push_back(ones.back() / others.back());
  }
  std::printf("%s\t%.3f\t%.3f\t%.4f\n", name, median(ones), median(others), median(ratios));
  std::fflush(stdout);
}

// 64 sequences of 10 to 1000 in a packed batch, and each by a call of its own.
void packed(int rounds, const std::vector<Mask>& masks, const char* name) {
  oracle::Random random(7);
  std::vector<int32_t> bounds = {0};
  for (int n = 0; n < 64; ++n) {
    bounds.push_back(bounds.back() + 10 + static_cast<int32_t>(random.below(991)));
  }
  Operands x(bounds.back());
  AttentionOptions one{.masks = masks}, all{.masks = masks};
  all.cu_seqlens_q = all.cu_seqlens_k = {bounds.data(), {static_cast<int64_t>(bounds.size())}};
  Tensor alone(DType::kFloat32, x.out.shape());
  const auto run_alone = [&] {
    for (size_t n = 0; n + 1 < bounds.size(); ++n) {
      const int64_t begin = bounds[n], len = bounds[n + 1] - begin;
      attention_forward(x.query.view().narrow(2, begin, len), x.key.view().narrow(2, begin, len),
                        x.value.view().narrow(2, begin, len), one,
                        {.out = alone.view().narrow(2, begin, len)});
    }
  };
  const auto run_packed = [&] { x.run(all); };
  run_packed();
  run_alone();
  if (!oracle::compare_bits(x.out, alone).ok) throw std::runtime_error("packed has other bits");
  print_pair(name, rounds, run_packed, run_alone);
}

void window(int rounds) {
  Operands x(8192);
  const AttentionOptions causal{.masks = {Mask::causal()}};
  const AttentionOptions sliding{.masks = {Mask::window(255, 0)}};
  for (const AttentionOptions& options : {causal, sliding}) {
    x.run(options);
    check(x, options.masks);
  }
  print_pair("causal, window of 256", rounds, [&] { x.run(causal); }, [&] { x.run(sliding); });
}

// ALiBi as a user writes it.
struct Slopes {
  std::array<float, kHeads> slopes;
  template <class T>
  T operator()(T score, int, int head, int query, int key) const {
    const T slope = static_cast<T>(slopes[static_cast<size_t>(head)]);
    return score - slope * static_cast<T>(std::abs(query - key));
  }
};

void alibi(int rounds, int64_t len, std::vector<Mask> masks, const char* name) {
  Slopes slopes;
  for (size_t h = 0; h < kHeads; ++h) slopes.slopes[h] = std::exp2(-static_cast<float>(h + 1));
  AttentionOptions own{.score_mod = per_score(slopes), .masks = masks};
  masks.push_back(Mask::alibi({slopes.slopes.data(), {kHeads}}));
  const AttentionOptions built_in{.masks = masks};
  Operands x(len);
  for (const AttentionOptions& options : {own, built_in}) {
    x.run(options);
    check(x, masks);
  }
  print_pair(name, rounds, [&] { x.run(own); }, [&] { x.run(built_in); });
}

void run(int rounds) {
  packed(rounds, {}, "packed");
  packed(rounds, {Mask::causal()}, "packed, causal");
  window(rounds);
  alibi(rounds, 2048, {}, "score_mod");
  alibi(rounds, 2048, {Mask::causal()}, "score_mod, causal");
}

}  // namespace
}  // namespace polyhead::bench

int main(int argc, char** argv) {
  polyhead::set_num_threads(argc > 1 ? std::atoi(argv[1]) : 1);
  try {
    polyhead::bench::run(argc > 2 ? std::atoi(argv[2]) : 9);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "structure: %s\n", error.what());
    return 1;
  }
  return 0;
}
