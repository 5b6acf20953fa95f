// A decoder's step, one query over a cache, beside the rate at which the same threads read the same
// memory. A step reads every key and value once, so that rate is its limit.
//
//   decode [THREADS = 1] [POSITIONS = 4096] [ROUNDS = 31]
//
// float32, D = 128, caches of about 400 MB in turn, so that no step finds its keys in a CPU's
// cache. In each round every line's step and the stream are timed in turn; `of stream` is the
// median of the rounds' ratios, by elapsed time and by the processor's. Before that, the answer is
// compared with the double reference.
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include <polyhead/kv_cache.h>
#include <polyhead/runtime.h>
#include "attention/attention_reference.h"
#include "attention/cache/page_memory.h"
#include "bench/decode/stream.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/random.h"
#include "testing/tolerance.h"

namespace polyhead::bench {
namespace {

constexpr int64_t kHeadDim = 128;
constexpr int64_t kBytesInTurn = int64_t{400} << 20;

struct Line {
  int64_t batch, heads, kv_heads;
  int64_t page_len;  // 0: one page
};

struct Seconds {
  double elapsed, of_processor;
};

double now_on(clockid_t clock) {
  timespec time;
  clock_gettime(clock, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

template <class Body>
Seconds timed(const Body& body) {
  const double elapsed = now_on(CLOCK_MONOTONIC), of_processor = now_on(CLOCK_PROCESS_CPUTIME_ID);
  body();
  return {now_on(CLOCK_MONOTONIC) - elapsed, now_on(CLOCK_PROCESS_CPUTIME_ID) - of_processor};
}

double median(std::vector<double> numbers) {
  std::sort(numbers.begin(), numbers.end());
  return numbers[numbers.size() / 2];
}

Tensor random_tensor(std::initializer_list<int64_t> shape, uint64_t seed) {
  oracle::Random random(seed);
  Tensor tensor(DType::kFloat32, shape);
  float* data = tensor.data_as<float>();
  for (int64_t n = 0; n < tensor.numel(); ++n) {
    data[n] = static_cast<float>(random.uniform() * 2 - 1);
  }
  return tensor;
}

class Decoder {
 public:
  Decoder(const Line& line, int64_t positions)
      : line_(line),
        positions_(positions),
        key_(random_tensor({line.batch, line.kv_heads, positions, kHeadDim}, 1)),
        value_(random_tensor({line.batch, line.kv_heads, positions, kHeadDim}, 2)),
        query_(random_tensor({line.batch, line.heads, 1, kHeadDim}, 3)),
        out_(DType::kFloat32, {line.batch, line.heads, 1, kHeadDim}) {
    const int64_t page_len = line.page_len > 0 ? line.page_len : (positions + 31) / 32 * 32;
    const int64_t pages = (positions + page_len - 1) / page_len;
    for (int64_t bytes = 0; bytes < kBytesInTurn; bytes += this->bytes()) {
      caches_.push_back(
          std::make_unique<KvCache>(KvCache::Config{.batch = line.batch,
                                                    .num_kv_heads = line.kv_heads,
                                                    .head_dim = kHeadDim,
                                                    .page_len = page_len,
                                                    .num_pages = line.batch * pages}));
      caches_.back()->append(key_, value_);
      streams_.push_back(allocate_page_memory(static_cast<size_t>(this->bytes() / 2)));
      std::memcpy(streams_.back().get(), key_.data(), static_cast<size_t>(this->bytes() / 2));
    }
  }

  int64_t bytes() const { return 2 * key_.numel() * static_cast<int64_t>(sizeof(float)); }

  void step(size_t turn) {
    attention_forward(query_, *caches_[turn % caches_.size()], {}, {.out = out_});
  }
  // As many bytes, of memory like that of a cache, in as many parts.
  float stream(size_t turn) const {
    const auto parts = static_cast<size_t>(line_.batch * line_.kv_heads);
    const auto size = static_cast<size_t>(positions_ * kHeadDim);
    struct Sums {
      const std::byte* memory[2];
      size_t size;
      float sum[2];
    } sums{{streams_[turn % streams_.size()].get(),
            streams_[(turn + streams_.size() / 2) % streams_.size()].get()},
           size,
           {}};
    const auto add = [](void* argument, size_t part) {
      Sums& of = *static_cast<Sums*>(argument);
      for (int n = 0; n < 2; ++n) {
        const auto* data = reinterpret_cast<const float*>(of.memory[n]) + part * of.size;
        const float sum = sum_of(data, of.size);
        if (part == 0) of.sum[n] = sum;
        asm volatile("" : : "r"(&sum) : "memory");  // or nothing would be read
      }
    };
    parallel_for(parts, add, &sums);
    return sums.sum[0] + sums.sum[1];
  }

  // Empty if right.
  std::string find_error() {
    step(0);
    const AttentionOptions options;
    const AttentionCall call = call_of(query_, key_, value_, options);
    const AttentionReference truth = attention_forward_reference(call, {.budget = true});
    return oracle::compare_within_budget(out_, truth.out, truth.out_budget,
                                         oracle::allowed_use(DType::kFloat32))
        .report;
  }

 private:
  Line line_;
  int64_t positions_;
  Tensor key_, value_, query_, out_;
  std::vector<std::unique_ptr<KvCache>> caches_;
  std::vector<PageMemory> streams_;
};

bool measure(const Line& line, int64_t positions, int rounds) {
  Decoder decoder(line, positions);
  const std::string error = decoder.find_error();
  if (!error.empty()) {
    std::printf("wrong result: %s\n", error.c_str());
    return false;
  }
  std::vector<double> step, stream, ratio, ratio_of_processor;
  for (int round = 0; round < rounds; ++round) {
    const auto turn = static_cast<size_t>(round);
    const Seconds ours = timed([&] { decoder.step(turn); });
    const Seconds probe = timed([&] { decoder.stream(turn); });
    step.push_back(ours.elapsed);
    stream.push_back(probe.elapsed);
    ratio.push_back(probe.elapsed / ours.elapsed);
    ratio_of_processor.push_back(probe.of_processor / ours.of_processor);
  }
  const double gigabytes = 1e-9 * static_cast<double>(decoder.bytes());
  const std::string pages =
      line.page_len == 0 ? "one page" : "pages of " + std::to_string(line.page_len);
  std::printf(
      "%2ld x heads %2ld:%-2ld %-13s %7.2f ms %6.1f GB/s; stream %6.1f GB/s; of stream %.2f, "
      "of its processor time %.2f\n",
      static_cast<long>(line.batch), static_cast<long>(line.heads),
      static_cast<long>(line.kv_heads), pages.c_str(), 1e3 * median(step), gigabytes / median(step),
      gigabytes / median(stream), median(ratio), median(ratio_of_processor));
  return true;
}

int run(int threads, int64_t positions, int rounds) {
  set_num_threads(threads);
  std::printf("%d threads, %s, %ld positions of %ld, float32\n", threads, isa().c_str(),
              static_cast<long>(positions), static_cast<long>(kHeadDim));
  bool right = true;
  for (const Line& line : {Line{1, 32, 32, 0}, Line{1, 32, 8, 0}, Line{1, 32, 8, 256},
                           Line{1, 32, 8, 32}, Line{4, 32, 8, 256}, Line{1, 64, 8, 256}}) {
    right = measure(line, positions, rounds) && right;
  }
  return right ? 0 : 1;
}

}  // namespace
}  // namespace polyhead::bench

int main(int argc, char** argv) {
  const auto argument = [&](int n, int otherwise) {
    return argc > n ? static_cast<int>(std::strtol(argv[n], nullptr, 10)) : otherwise;
  };
  return polyhead::bench::run(argument(1, 1), argument(2, 4096), argument(3, 31));
}
