// Attention over a cache gives the bits of attention over tensors, however the positions came into
// the cache and whatever its pages are.
#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/kv_cache.h>
#include "attention/cache/cache_test_tools.h"
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

const Mask kCausal = Mask::causal();

class CachedAttention : public ::testing::TestWithParam<DType> {
 protected:
  AttentionCase usual() const {
    return {.batch = 2,
            .heads = 8,
            .kv_heads = 2,
            .head_dim = 20,
            .v_head_dim = 24,
            .dtype = GetParam(),
            .regime = Regime::kPeaked};
  }

  // The last q_len queries, over the cache and over tensors with key lengths, on two plans.
  static void expect_as_masked_tensors(const CacheBesideTensors& beside, int64_t q_len,
                                       const std::string& what) {
    AttentionCall call = beside.problem.call();
    const int64_t first = call.q_len() - q_len;
    const std::vector<Mask> cached = narrowed(beside.problem.masks, 2, first, q_len);
    std::vector<Mask> masks = cached;
    masks.push_back(Mask::key_lengths({beside.lengths.data(), {2}}));
    call.query = call.query.narrow(2, first, q_len);
    call.masks = masks;
    AttentionOptions options{.masks = cached, .weights = call.weights_mode};
    for (const std::string plan : {"", "reference"}) {
      const AttentionRun want = run_attention_case(call, plan);
      AttentionRun got = run_attention_case(call, plan);
      for (const GuardedTensor* of : {&got.out, &got.lse, &got.lse_rest, &got.weights}) {
        fill(of->view(), 77);
      }
      options.plan = plan.empty() ? nullptr : plan.c_str();
      attention_forward(call.query, beside.cache, options,
                        {.out = got.out.view(),
                         .lse = got.lse.view(),
                         .weights = got.weights.view(),
                         .lse_rest = got.lse_rest.view()});
      expect_same_run(got, want, what + " " + plan);
    }
  }

  // Appends so many positions and attends from them, again and again, against one pass over all.
  static void expect_one_pass(const CacheBesideTensors& beside, const AttentionOptions& options,
                              const std::vector<int64_t>& chunks, const std::string& what) {
    expect_one_pass_of_window(beside, options, options, chunks, what);
  }
  // `at_once`: the options of the one pass.
  static void expect_one_pass_of_window(const CacheBesideTensors& beside,
                                        const AttentionOptions& options,
                                        const AttentionOptions& at_once,
                                        const std::vector<int64_t>& chunks,
                                        const std::string& what) {
    const AttentionProblem& whole = beside.problem;
    const AttentionCase& spec = whole.spec;
    Tensor out(spec.dtype, {spec.batch, spec.heads, spec.q_len, spec.v_head_dim}),
        lse(spec.dtype, {spec.batch, spec.heads, spec.q_len});
    attention_forward(whole.query.view(), whole.key.view(), whole.value.view(), at_once,
                      {.out = out, .lse = lse});
    KvCache cache(beside.cache.config());
    int64_t at = 0;
    for (size_t n = 0; at < spec.kv_len; at += chunks[n], n = (n + 1) % chunks.size()) {
      const int64_t count = std::min(chunks[n], spec.kv_len - at);
      const auto part = [&](const GuardedTensor& of) { return of.view().narrow(2, at, count); };
      cache.append(part(whole.key), part(whole.value));
      GuardedTensor got(spec.dtype, {spec.batch, spec.heads, count, spec.v_head_dim}),
          got_lse(spec.dtype, {spec.batch, spec.heads, count});
      attention_forward(part(whole.query), cache, options,
                        {.out = got.view(), .lse = got_lse.view()});
      const std::string where = what + ", positions from " + std::to_string(at);
      expect_same_bits(got.view(), out.view().narrow(2, at, count), where);
      expect_same_bits(got_lse.view(), lse.view().narrow(2, at, count), where);
      EXPECT_TRUE(got.intact() && got_lse.intact()) << where;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, CachedAttention,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(CachedAttention, PrefillAndDecodeAreOnePass) {
  const AttentionOptions causal{.masks = {kCausal}};
  for (const int64_t page_len : {32, 96, 256}) {
    for (const Storage storage : {Storage::kContiguous, Storage::kHeadsInner, Storage::kColumns}) {
      AttentionCase spec = usual();
      spec.storage = storage;
      const CacheBesideTensors beside(spec, 150, config_of(spec, page_len, 150));
      for_each_isa([&](const std::string& isa) {
        for (const int threads : {1, 3}) {
          const Threads set(threads);
          const std::string what = isa + ", pages of " + std::to_string(page_len);
          expect_one_pass(beside, causal, {150}, what);
          expect_one_pass(beside, causal, {1}, what);
          expect_one_pass(beside, causal, {65, 1, 1, 3, 17, 2}, what);
        }
      });
    }
  }
}

// Several chunks of the canonical order, and stretches that pages cut.
TEST_P(CachedAttention, LongSequences) {
  AttentionCase spec = usual();
  spec.batch = 1;
  spec.heads = 4;
  spec.kv_heads = 1;
  for (const int64_t page_len : {32, 416, 1024, 2240}) {
    const CacheBesideTensors beside(spec, 2230, config_of(spec, page_len, 2230));
    for_each_isa([&](const std::string& isa) {
      expect_one_pass(beside, {.masks = {kCausal}}, {1000, 20, 1, 2, 3, 4, 1190, 1, 1, 8},
                      isa + ", pages of " + std::to_string(page_len));
    });
  }
}

// Threads share the keys of a head: chunks that a row sees all, some or nothing of.
TEST_P(CachedAttention, MoreThreadsThanHeads) {
  for (const auto& [heads, kv_heads] : {std::pair(1, 1), {4, 1}, {6, 2}, {20, 1}}) {
    AttentionCase spec = usual();
    spec.batch = 1;
    spec.heads = heads;
    spec.kv_heads = kv_heads;
    spec.sinks = true;
    CacheBesideTensors beside(spec, 3100, config_of(spec, 160, 3100));
    beside.append(3100);
    const AttentionOptions cases[] = {{},
                                      {.masks = {kCausal}, .sinks = beside.problem.sinks.view()},
                                      {.softcap = 5, .masks = {Mask::window(1500, 0)}},
                                      {.masks = {Mask::window(3, 0), Mask::causal(1020)}},
                                      {.masks = {Mask::causal(-9)}, .empty_rows = EmptyRow::kNan}};
    for_each_isa([&](const std::string& isa) {
      for (const AttentionOptions& options : cases) {
        for (const int64_t q_len : {1, 3, 16}) {
          const Threads set(q_len == 3 ? 3 : 9);
          beside.expect_as_tensors(q_len, options, isa + ", " + std::to_string(heads) + " heads");
        }
      }
    });
  }
}

// Heads of one, few and many to a group, and widths that vectors do not divide.
TEST_P(CachedAttention, GroupsAndWidths) {
  for (const auto& [heads, kv_heads] :
       {std::pair(1, 1), {3, 3}, {6, 2}, {14, 2}, {50, 1}, {9, 3}}) {
    for (const auto& [head_dim, v_head_dim] : {std::pair(1, 3), {16, 70}, {129, 16}}) {
      AttentionCase spec = usual();
      spec.heads = heads;
      spec.kv_heads = kv_heads;
      spec.head_dim = head_dim;
      spec.v_head_dim = v_head_dim;
      spec.sinks = true;
      CacheBesideTensors beside(spec, 90, config_of(spec, 32, 90));
      const AttentionOptions options{.masks = {kCausal}, .sinks = beside.problem.sinks.view()};
      beside.append(80);
      for_each_isa([&](const std::string& isa) {
        for (const int64_t q_len : {1, 2, 5, 16, 17}) {
          const std::string what = isa + ", " + std::to_string(q_len) + " queries";
          beside.expect_as_tensors(q_len, options, what);
          beside.expect_as_tensors(q_len, {}, what + ", none hidden");
          const Threads seven(7);
          beside.expect_as_tensors(q_len, options, what + ", seven threads");
        }
      });
    }
  }
}

TEST_P(CachedAttention, EachOption) {
  AttentionCase spec = usual();
  spec.sinks = true;
  CacheBesideTensors beside(spec, 120, config_of(spec, 32, 120));
  beside.append({120, 77});
  const Tensor slopes = [&] {
    Tensor numbers(DType::kFloat64, {spec.heads});
    fill_with(numbers, [](const Index& at) { return 0.1 * static_cast<double>(at[0] + 1); });
    return numbers;
  }();
  const std::pair<const char*, AttentionOptions> cases[] = {
      {"scale", {.scale = 0.3, .masks = {kCausal}}},
      {"softcap", {.softcap = 3, .masks = {kCausal}}},
      {"sinks", {.masks = {kCausal}, .sinks = beside.problem.sinks.view()}},
      {"window", {.masks = {Mask::window(11, 0)}}},
      {"window of one", {.masks = {Mask::window(0, 0)}}},
      {"window to both sides", {.masks = {Mask::window(40, 3, CausalAlign::kBottomRight)}}},
      {"two", {.masks = {Mask::window(50, Mask::kUnbounded), kCausal}}},
      {"alibi", {.masks = {Mask::alibi(slopes), kCausal}}},
      {"offset", {.masks = {Mask::causal(20), Mask::window(9, 9, 20)}}},
      {"eleven masks", {.masks = std::vector<Mask>(11, kCausal)}}};
  for (const auto& [name, options] : cases) {
    for_each_isa([&](const std::string& isa) {
      for (const int64_t q_len : {1, 3, 60}) {
        beside.expect_as_tensors(q_len, options, isa + ", " + name);
        beside.expect_as_tensors({q_len, 2}, options, isa + ", packed, " + name);
      }
    });
  }
}

// A number says where query 0 stands, over a cache as over tensors: 0 too.
TEST_P(CachedAttention, OffsetsThatAreNumbers) {
  AttentionCase spec = usual();
  spec.batch = 1;
  spec.q_len = spec.kv_len = 100;
  const AttentionProblem problem(spec);
  const ConstTensorView queries = problem.query.view().narrow(2, 95, 5);
  KvCache cache(config_of(spec, 32, 100));
  cache.append(problem.key.view(), problem.value.view());
  const Tensor slopes = [&] {
    Tensor numbers(spec.dtype, {spec.heads});
    fill(numbers, 0.3);
    return numbers;
  }();
  for (const int64_t offset : {0, -2, 1, 40, 95}) {
    const std::vector<Mask> cases[] = {{Mask::causal(offset)},
                                       {Mask::window(2, 1, offset)},
                                       {Mask::alibi(slopes, offset)},
                                       {Mask::window(2, 0), Mask::causal(offset)}};
    for (std::vector<Mask> masks : cases) {
      Tensor out(spec.dtype, {1, spec.heads, 5, spec.v_head_dim}), want(out);
      attention_forward(queries, cache, {.masks = masks}, {.out = out});
      // That of the window over tensors has to be said.
      if (masks.size() > 1) masks[0] = Mask::window(2, 0, CausalAlign::kBottomRight);
      attention_forward(queries, problem.key.view(), problem.value.view(), {.masks = masks},
                        {.out = want});
      expect_same_bits(out, want, "offset " + std::to_string(offset));
    }
  }
}

// The scores that a score_mod meets are those of the same positions.
TEST_P(CachedAttention, ScoreModByPosition) {
  const auto slope = [](auto score, int batch, int head, int query, int key) {
    return score - static_cast<decltype(score)>((head + batch + 1) * (query - key)) / 64;
  };
  CacheBesideTensors beside(usual(), 70, config_of(usual(), 32, 70));
  const AttentionOptions options{.score_mod = per_score(slope), .masks = {kCausal}};
  for (const std::string plan : {"", "reference"}) {
    for_each_isa([&](const std::string& isa) {
      AttentionOptions planned = options;
      planned.plan = plan.empty() ? nullptr : plan.c_str();
      expect_one_pass(beside, planned, {40, 1, 2, 20}, isa + " " + plan);
    });
  }
}

// Tensor masks and weights, S being the longest length: as tensors with key lengths. All queries,
// and so few that lanes are keys.
TEST_P(CachedAttention, MasksAndWeightsOverTheLongest) {
  AttentionCase spec = usual();
  spec.masks = {{.dims = "bhls"}, {.kind = Mask::Kind::kAdditive, .dims = "h1s"}};
  for (const WeightsMode mode : {WeightsMode::kPerHead, WeightsMode::kAverage}) {
    spec.weights = mode;
    for (const int64_t longest : {70, 49}) {
      CacheBesideTensors beside(spec, longest, config_of(spec, 32, 70));
      beside.append({longest, 33});
      for_each_isa([&](const std::string& isa) {
        for (const int64_t q_len : {longest, int64_t{3}, int64_t{1}}) {
          expect_as_masked_tensors(beside, q_len, isa + ", queries " + std::to_string(q_len));
        }
      });
    }
  }
}

// A window of the cache is a window mask over the whole sequences, whatever has been forgotten; and
// it needs no more pages than the window and what is appended at a time.
TEST_P(CachedAttention, ForgettingIsAWindow) {
  for (const int64_t window : {1, 5, 32, 33, 100}) {
    for (const int64_t page_len : {32, 64}) {
      AttentionCase spec = usual();
      KvCache::Config config = config_of(spec, page_len, window - 1 + 20 + page_len - 1);
      config.window = window;
      const CacheBesideTensors beside(spec, 400, config);
      const AttentionOptions causal{.masks = {kCausal}},
          both{.masks = {kCausal, Mask::window(window - 1, 0)}};
      for_each_isa([&](const std::string& isa) {
        const std::string what = isa + ", window " + std::to_string(window);
        expect_one_pass_of_window(beside, causal, both, {20, 1, 7, 1, 1}, what);
      });
    }
  }
}

// The cache's window looks back from where a number places the queries, too.
TEST_P(CachedAttention, ForgettingGoesByTheOffset) {
  AttentionCase spec = usual();
  spec.batch = 1;
  spec.q_len = spec.kv_len = 200;
  const AttentionProblem problem(spec);
  KvCache::Config config = config_of(spec, 32, 200);
  config.window = 40;
  KvCache cache(config);
  for (int64_t at = 0; at < 200; at += 20) {
    cache.append(problem.key.view().narrow(2, at, 20), problem.value.view().narrow(2, at, 20));
  }
  ASSERT_EQ(cache.first_kept(0), 128);
  const ConstTensorView query = problem.query.view().narrow(2, 0, 3);
  Tensor out(spec.dtype, {1, spec.heads, 3, spec.v_head_dim}), want(out);
  Tensor slopes(spec.dtype, {spec.heads});
  fill(slopes, 0.1);
  for_each_isa([&](const std::string& isa) {
    for (const int64_t offset : {167, 180, 197, 230, 300}) {
      for (const Mask& mask :
           {Mask::causal(offset), Mask::window(9, 30, offset),
            Mask::window(Mask::kUnbounded, 0, offset), Mask::alibi(slopes, offset)}) {
        attention_forward(query, cache, {.masks = {mask}}, {.out = out});
        const Mask window = Mask::window(39, Mask::kUnbounded, offset);
        attention_forward(query, problem.key.view(), problem.value.view(),
                          {.masks = {mask, window}}, {.out = want});
        expect_same_bits(out, want, isa + ", offset " + std::to_string(offset));
      }
    }
  });
}

// A row that no query sees may hold anything, and of what is forgotten, of other sequences' pages
// and of what was never written nothing comes into a result: pages start as what memory held.
TEST_P(CachedAttention, PagesUsedBefore) {
  AttentionCase spec = usual();
  CacheBesideTensors beside(spec, 100, config_of(spec, 32, 100));
  const Tensor poison = [&] {
    Tensor numbers(spec.dtype, {2, 2, 100, 24});
    fill(numbers, std::numeric_limits<double>::quiet_NaN());
    return numbers;
  }();
  beside.cache.append(poison.view().narrow(3, 0, 20), poison);
  beside.cache.reset();
  beside.append({37, 64});
  for_each_isa([&](const std::string& isa) {
    for (const int64_t q_len : {1, 2, 4, 30}) {
      beside.expect_as_tensors(q_len, {.masks = {kCausal}}, isa);
      beside.expect_as_tensors(q_len, {}, isa + ", none hidden");
    }
  });
}

// Keys in the block in which a window begins, before it: their scores are made and hidden.
TEST_P(CachedAttention, NaNBeforeAWindow) {
  const AttentionCase spec = usual();
  CacheBesideTensors clean(spec, 60, config_of(spec, 32, 60)),
      poisoned(clean.problem.spec, 60, config_of(spec, 32, 60));
  for (const GuardedTensor* of : {&poisoned.problem.key, &poisoned.problem.value}) {
    fill(of->view().narrow(2, 0, 45), std::numeric_limits<double>::quiet_NaN());
  }
  clean.append(60);
  poisoned.append(60);
  const auto same = [](auto score, int, int, int, int) { return score; };
  const std::vector<Mask> window = {Mask::window(10, 0)};
  const AttentionOptions cases[] = {{.masks = window},
                                    {.softcap = 3, .masks = window},
                                    {.score_mod = per_score(same), .masks = window}};
  for_each_isa([&](const std::string& isa) {
    for (const AttentionOptions& options : cases) {
      for (const int64_t q_len : {1, 2, 4, 5}) {
        const ConstTensorView query = clean.problem.query.view().narrow(2, 60 - q_len, q_len);
        Tensor out(spec.dtype, {2, spec.heads, q_len, spec.v_head_dim}), want(out);
        attention_forward(query, clean.cache, options, {.out = want});
        attention_forward(query, poisoned.cache, options, {.out = out});
        expect_same_bits(out, want, isa + ", queries " + std::to_string(q_len));
      }
    }
  });
}

TEST_P(CachedAttention, AgainstTheReference) {
  AttentionCase spec = usual();
  spec.q_len = spec.kv_len = 90;
  spec.masks = {{.kind = Mask::Kind::kCausal}};
  CacheBesideTensors beside(spec, 90, config_of(spec, 32, 90));
  beside.append(90);
  const AttentionCall call = beside.problem.call();
  const AttentionTruth truth = truth_of(call);
  for_each_isa([&](const std::string& isa) {
    for (const std::string plan : {"", "reference"}) {
      AttentionRun run = run_attention_case(call);
      fill(run.out.view(), 77);
      fill(run.lse.view(), 77);
      AttentionOptions options{.masks = {kCausal}};
      options.plan = plan.empty() ? nullptr : plan.c_str();
      attention_forward(beside.problem.query.view(), beside.cache, options,
                        {.out = run.out.view(), .lse = run.lse.view()});
      expect_truth(run, truth, "cached", isa + " " + plan);
    }
  });
}

}  // namespace
}  // namespace polyhead::oracle
