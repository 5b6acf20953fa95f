// Appends, cuts, resets and queries in any order, drawn by RapidCheck, against the same sequences
// in tensors and a count of pages.
#include <cstdlib>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/error.h>
#include <polyhead/runtime.h>
#include <rapidcheck.h>
#include "attention/cache/cache_test_tools.h"
#include "testing/machine.h"
#include "testing/random_case.h"

namespace polyhead::oracle {
namespace {

constexpr int64_t kMost = 200;  // positions of a sequence

AttentionCase any_cached_case() {
  AttentionCase spec = any_shape();
  spec.batch = between(1, 3);  // a cache has at least one of everything
  spec.head_dim = between(1, 40);
  spec.v_head_dim = between(1, 40);
  spec.softcap = one_of<double>({0, 0, 3, 50});
  spec.sinks = between(0, 1) == 0;
  return spec;
}

AttentionOptions any_options(const AttentionProblem& problem) {
  AttentionOptions options{.softcap = problem.spec.softcap};
  if (problem.spec.sinks) options.sinks = problem.sinks.view();
  if (between(0, 2) > 0) options.masks.push_back(Mask::causal());
  if (between(0, 2) == 0) {
    const int64_t right = one_of<int64_t>({Mask::kUnbounded, 0, 2});
    options.masks.push_back(Mask::window(between(0, 40), right));
  }
  return options;
}

struct Walk {
  CacheBesideTensors beside;
  int64_t pages, free;

  explicit Walk(const AttentionCase& spec, const KvCache::Config& config)
      : beside(spec, kMost, config), pages(config.num_pages), free(pages) {}

  int64_t held(size_t n) const {
    const int64_t page_len = beside.cache.config().page_len;
    const auto b = static_cast<int64_t>(n);
    const int64_t end = (beside.lengths[n] + page_len - 1) / page_len;
    return end - beside.cache.first_kept(b) / page_len;
  }

  void expect_counts() const {
    int64_t sum = beside.cache.free_pages();
    for (size_t n = 0; n < beside.lengths.size(); ++n) {
      sum += held(n);
      EXPECT_EQ(beside.cache.length(static_cast<int64_t>(n)), beside.lengths[n]);
    }
    EXPECT_EQ(sum, pages);
  }

  void append() {
    std::vector<int64_t> counts;
    for (int64_t length : beside.lengths) {
      counts.push_back(between(0, std::min<int64_t>(kMost - length, 70)));
    }
    const int64_t before = beside.cache.free_pages();
    try {
      beside.append(counts);
    } catch (const InvalidArgument&) {  // out of pages
      EXPECT_EQ(beside.cache.free_pages(), before);
    }
  }

  void cut() {
    const auto n = static_cast<size_t>(between(0, static_cast<int64_t>(beside.lengths.size()) - 1));
    const int64_t length = between(0, beside.lengths[n]);
    try {
      beside.cache.truncate(static_cast<int64_t>(n), length);
      beside.lengths[n] = length;
    } catch (const InvalidArgument&) {  // forgotten
      EXPECT_GT(beside.cache.first_kept(static_cast<int64_t>(n)), 0);
    }
  }

  void attend(const std::string& what) const {
    const AttentionOptions options = any_options(beside.problem);
    const int64_t window = beside.cache.config().window;
    std::vector<int64_t> q_lens;
    for (size_t n = 0; n < beside.lengths.size(); ++n) {
      const int64_t kept = beside.cache.first_kept(static_cast<int64_t>(n));
      const int64_t most = kept == 0 ? beside.lengths[n] : beside.lengths[n] - kept - window + 1;
      q_lens.push_back(between(0, std::max<int64_t>(most, 0)));
    }
    beside.expect_as_tensors(q_lens, options, what);
  }
};

TEST(KvCacheRandom, AnyWalk) {
  setenv("RC_PARAMS", "seed=20 max_success=150", /*overwrite=*/0);
  EXPECT_TRUE(rc::check([] {
    const AttentionCase spec = any_cached_case();
    KvCache::Config config = config_of(spec, 32 * between(1, 4), between(1, kMost));
    config.window = one_of<int64_t>({0, 0, 1, 20, 64});
    const ForcedIsa isa(one_of(available_isas()));
    const Threads threads(static_cast<int>(between(1, 3)));
    Walk walk(spec, config);
    const std::vector<std::string> failures = failures_of([&] {
      for (int step = 0; step < 12; ++step) {
        const int64_t kind = between(0, 5);
        kind < 3 ? walk.append() : kind < 4 ? walk.cut() : walk.attend(spec.describe());
        walk.expect_counts();
      }
    });
    if (!failures.empty()) RC_FAIL(failures.front());
  }));
}

}  // namespace
}  // namespace polyhead::oracle
