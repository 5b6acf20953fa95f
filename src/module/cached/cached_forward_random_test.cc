// Modules, caches and walks drawn by RapidCheck: steps of any tokens of any sequences, cuts and
// pages that run out, each row having the bits of one pass.
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/error.h>
#include <polyhead/runtime.h>
#include "module/cached/decoder_beside_one_pass.h"
#include "testing/machine.h"
#include "testing/random_case.h"

namespace polyhead::oracle {
namespace {

constexpr int64_t kMost = 110;  // tokens of a sequence

MultiheadAttention::Config any_config() {
  MultiheadAttention::Config config;
  config.num_kv_heads = between(1, 3);
  config.num_heads = config.num_kv_heads * between(1, 3);
  config.head_dim = between(1, 20) * 2;
  config.embed_dim = between(1, 50);
  config.layout = one_of<Layout>({Layout::kBatchFirst, Layout::kSequenceFirst});
  config.bias = between(0, 1) == 1;
  config.dtype = one_of<DType>({DType::kFloat32, DType::kFloat64});
  config.qk_norm = between(0, 1) == 1;
  config.rope.pairs =
      one_of<RopePairs>({RopePairs::kNone, RopePairs::kHalves, RopePairs::kInterleaved});
  if (config.rope.pairs == RopePairs::kNone) return config;
  config.rope.rotary_dim = 2 * between(1, config.head_dim / 2);
  config.rope.scaling = one_of<RopeScaling>({RopeScaling::kNone, RopeScaling::kNtk});
  if (config.rope.scaling != RopeScaling::kNone) config.rope.factor = 2;
  return config;
}

class Walk {
 public:
  Walk(const MultiheadAttention::Config& config, const KvCache::Config& cached)
      : decoder_(config, cached, kMost) {}

  void step() {
    std::vector<int64_t> counts;
    const int64_t most = one_of<int64_t>({1, 5, 70});
    for (const int64_t length : decoder_.lengths) {
      counts.push_back(between(0, std::min(kMost - length, most)));
    }
    may_run_out([&] { decoder_.step(counts, "step"); });
  }
  void alone() {
    const int64_t b = any_sequence(), left = kMost - decoder_.lengths[static_cast<size_t>(b)];
    const int64_t count = between(0, std::min<int64_t>(left, 40));
    may_run_out([&] { decoder_.step_alone(b, count, "step"); });
  }
  void cut() {
    const int64_t b = any_sequence();
    const int64_t length = between(0, decoder_.lengths[static_cast<size_t>(b)]);
    try {
      decoder_.cut(b, length);
    } catch (const InvalidArgument&) {  // forgotten
      EXPECT_GT(decoder_.cache.first_kept(b), 0);
    }
  }

 private:
  int64_t any_sequence() const { return between(0, decoder_.batch() - 1); }

  template <class Step>
  void may_run_out(const Step& step) const {
    const int64_t free = decoder_.cache.free_pages();
    try {
      step();
    } catch (const InvalidArgument&) {
      EXPECT_EQ(decoder_.cache.free_pages(), free);
      for (int64_t b = 0; b < decoder_.batch(); ++b) {
        EXPECT_EQ(decoder_.cache.length(b), decoder_.lengths[static_cast<size_t>(b)]);
      }
    }
  }

  DecoderBesideOnePass decoder_;
};

TEST(CachedForwardRandom, AnyWalk) {
  setenv("RC_PARAMS", "seed=22 max_success=150", /*overwrite=*/0);
  EXPECT_TRUE(rc::check([] {
    const MultiheadAttention::Config config = any_config();
    KvCache::Config cached = MultiheadAttention(config).cache_config(between(1, 4), between(1, 12));
    cached.page_len = 32 * between(1, 4);
    cached.window = one_of<int64_t>({0, 0, 1, 20, 64});
    const ForcedIsa isa(one_of(available_isas()));
    const Threads threads(static_cast<int>(between(1, 3)));
    const std::vector<std::string> failures = failures_of([&] {
      Walk walk(config, cached);
      for (int n = 0; n < 12; ++n) {
        const int64_t kind = between(0, 5);
        kind < 3 ? walk.step() : kind < 5 ? walk.alone() : walk.cut();
      }
    });
    if (!failures.empty()) RC_FAIL(failures.front());
  }));
}

}  // namespace
}  // namespace polyhead::oracle
