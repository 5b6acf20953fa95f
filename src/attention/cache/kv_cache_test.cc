// What a cache counts and refuses, and that a refusal changes nothing of it.
#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/error.h>
#include <polyhead/kv_cache.h>
#include "base/message.h"
#include "testing/compare.h"
#include "testing/elements.h"

namespace polyhead::oracle {
namespace {

std::string message_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "accepted";
}

// Two sequences, two heads of 4 and 3, three pages of 32.
KvCache::Config small() {
  return {.batch = 2,
          .num_kv_heads = 2,
          .head_dim = 4,
          .v_head_dim = 3,
          .page_len = 32,
          .num_pages = 3};
}

ConstTensorView zeros(std::initializer_list<int64_t> shape, DType dtype = DType::kFloat32) {
  static const Tensor memory(DType::kFloat64, {1 << 16});
  return {memory.data(), dtype, Shape(shape.begin(), shape.size())};
}

void append(KvCache& cache, const std::vector<int64_t>& counts) {
  const int64_t most = *std::max_element(counts.begin(), counts.end());
  const auto batch = static_cast<int64_t>(counts.size());
  cache.append(zeros({batch, 2, most, 4}), zeros({batch, 2, most, 3}), {counts.data(), {batch}});
}

TEST(KvCache, CountsPositionsAndPages) {
  KvCache cache(small());
  EXPECT_EQ(cache.config().v_head_dim, 3);
  EXPECT_EQ(cache.free_pages(), 3);
  append(cache, {33, 0});
  EXPECT_EQ(cache.length(0), 33);
  EXPECT_EQ(cache.length(1), 0);
  EXPECT_EQ(cache.free_pages(), 1);
  append(cache, {31, 32});
  EXPECT_EQ(cache.free_pages(), 0);
  cache.truncate(0, 32);
  EXPECT_EQ(cache.length(0), 32);
  EXPECT_EQ(cache.free_pages(), 1);
  cache.append(1, zeros({2, 5, 4}), zeros({2, 5, 3}));
  EXPECT_EQ(cache.length(1), 37);
  EXPECT_EQ(cache.free_pages(), 0);
  cache.reset(0);
  EXPECT_EQ(cache.length(0), 0);
  EXPECT_EQ(cache.free_pages(), 1);
  cache.reset();
  EXPECT_EQ(cache.free_pages(), 3);
}

TEST(KvCache, AWindowGivesPagesBack) {
  KvCache::Config config = small();
  config.batch = 1;
  config.window = 10;
  KvCache cache(config);
  const auto step = [&](int64_t n) { cache.append(zeros({1, 2, n, 4}), zeros({1, 2, n, 3})); };
  for (int n = 0; n < 500; ++n) {
    step(1);
    EXPECT_GE(cache.free_pages(), 1) << n;
    EXPECT_EQ(cache.first_kept(0), std::max(n - 9, 0) / 32 * 32) << n;
  }
  // The last page is kept while some of it is seen, and all go when none is.
  config.window = 1;
  cache = KvCache(config);
  step(32);
  step(1);
  EXPECT_EQ(cache.first_kept(0), 32);
  EXPECT_EQ(cache.free_pages(), 2);
}

TEST(KvCache, RefusesConfigs) {
  const std::pair<const char*, std::function<void(KvCache::Config&)>> cases[] = {
      {"KvCache: config.dtype: got int32; must be float32 or float64",
       [](auto& config) { config.dtype = DType::kInt32; }},
      {"KvCache: config.batch: got 0; must be between 1 and 2147483647",
       [](auto& config) { config.batch = 0; }},
      {"KvCache: config.num_kv_heads: got -1; must be between 1 and 2147483647",
       [](auto& config) { config.num_kv_heads = -1; }},
      {"KvCache: config.head_dim: got 0; must be between 1 and 2147483647",
       [](auto& config) { config.head_dim = 0; }},
      {"KvCache: config.v_head_dim: got -3; must be between 0 and 2147483647",
       [](auto& config) { config.v_head_dim = -3; }},
      {"KvCache: config.page_len: got 31; must be between 32 and 2147483647",
       [](auto& config) { config.page_len = 31; }},
      {"KvCache: config.page_len: got 48; must be a multiple of 32",
       [](auto& config) { config.page_len = 48; }},
      {"KvCache: config.num_pages: got 2147483648; must be between 1 and 2147483647",
       [](auto& config) { config.num_pages = int64_t{1} << 31; }},
      {"KvCache: config.window: got -1; must be between 0 and 2147483647",
       [](auto& config) { config.window = -1; }},
      {"KvCache: config: 2147483647 pages take 2^63 bytes or more; must be smaller",
       [](auto& config) {
         config.num_pages = config.num_kv_heads = config.head_dim =
             std::numeric_limits<int32_t>::max();
       }}};
  for (const auto& [message, spoil] : cases) {
    KvCache::Config config = small();
    spoil(config);
    EXPECT_EQ(message_of([&] { const KvCache cache(config); }), message);
  }
}

std::string needs_pages(int64_t wanted, int64_t free, int64_t all) {
  return "KvCache::append: key: needs " + std::to_string(wanted) +
         " more pages; must be at most the " + std::to_string(free) + " of " + std::to_string(all) +
         " that are free (reset a sequence, or make a cache with more num_pages)";
}

// Each of `cases` is refused, and neither lengths nor pages nor what attention sees changes.
class KvCacheRefusal : public ::testing::Test {
 protected:
  struct Case {
    std::string message;
    std::function<void()> call;
  };
  KvCache cache{small()};
  const ConstTensorView k = zeros({2, 2, 3, 4}), v = zeros({2, 2, 3, 3});

  KvCacheRefusal() {
    Tensor key(DType::kFloat32, {2, 2, 40, 4}), value(DType::kFloat32, {2, 2, 40, 3});
    fill_with(key, [](const Index& at) { return 0.1 * static_cast<double>(at[2] % 7 + at[3]); });
    fill_with(value, [](const Index& at) { return static_cast<double>(at[2] - at[0] + at[3]); });
    const int64_t lengths[] = {40, 31};
    cache.append(key, value, {lengths, {2}});
  }
  Tensor attend() const {
    Tensor query(DType::kFloat32, {2, 4, 3, 4}), out(DType::kFloat32, {2, 4, 3, 3});
    fill(query, 0.5);
    attention_forward(query, cache, {.masks = {Mask::causal()}}, {.out = out});
    return out;
  }
  void expect_refused(const std::vector<Case>& cases) const {
    const Tensor before = attend();
    for (const Case& bad : cases) {
      EXPECT_EQ(message_of(bad.call), bad.message);
      EXPECT_EQ(cache.length(0), 40) << bad.message;
      EXPECT_EQ(cache.length(1), 31) << bad.message;
      EXPECT_EQ(cache.free_pages(), 0) << bad.message;
      expect_same_bits(attend(), before, bad.message);
    }
  }
};

TEST_F(KvCacheRefusal, Keys) {
  expect_refused(
      {{needs_pages(2, 0, 3), [&] { cache.append(zeros({2, 2, 33, 4}), zeros({2, 2, 33, 3})); }},
       {needs_pages(1, 0, 3), [&] { append(cache, {24, 2}); }},
       {needs_pages(1, 0, 3), [&] { cache.append(1, zeros({2, 2, 4}), zeros({2, 2, 3})); }},
       {"KvCache::append: key: shape is [2, 2, 3, 5]; must be [2, 2, n, 4]",
        [&] { cache.append(zeros({2, 2, 3, 5}), v); }},
       {"KvCache::append: key: shape is [2, 3, 4]; must be [2, 2, n, 4]",
        [&] { cache.append(zeros({2, 3, 4}), v); }},
       {"KvCache::append: key: not given; must be [2, 2, n, 4]", [&] { cache.append({}, v); }},
       {"KvCache::append: value: shape is [2, 2, 2, 3]; must be [2, 2, 3, 3]",
        [&] { cache.append(k, zeros({2, 2, 2, 3})); }},
       {"KvCache::append: value: shape is [1, 2, 3, 3]; must be [2, 2, 3, 3]",
        [&] { cache.append(k, zeros({1, 2, 3, 3})); }},
       {"KvCache::append: key: dtype is float64; must be the cache's float32",
        [&] { cache.append(zeros({2, 2, 3, 4}, DType::kFloat64), v); }},
       {"KvCache::append: value: dtype is float64; must be the cache's float32",
        [&] { cache.append(k, zeros({2, 2, 3, 3}, DType::kFloat64)); }}});
}

TEST_F(KvCacheRefusal, Lengths) {
  static constexpr int64_t kLong[] = {3, 4}, kNegative[] = {-1, 0}, kThree[] = {1, 1, 1};
  static constexpr double kDoubles[] = {1, 1};
  expect_refused({{"KvCache::append: lengths[1]: got 4; must be between 0 and key's 3",
                   [&] { cache.append(k, v, {kLong, {2}}); }},
                  {"KvCache::append: lengths[0]: got -1; must be between 0 and key's 3",
                   [&] { cache.append(k, v, {kNegative, {2}}); }},
                  {"KvCache::append: lengths: shape is [3]; must be [2]",
                   [&] { cache.append(k, v, {kThree, {3}}); }},
                  {"KvCache::append: lengths: dtype is float64; must be int32 or int64",
                   [&] { cache.append(k, v, {kDoubles, {2}}); }},
                  {"KvCache::truncate: length: got 41; must be between 0 and 40",
                   [&] { cache.truncate(0, 41); }},
                  {"KvCache::truncate: length: got -1; must be between 0 and 31",
                   [&] { cache.truncate(1, -1); }}});
}

TEST_F(KvCacheRefusal, Sequences) {
  expect_refused(
      {{"KvCache::append: sequence: got 2; must be between 0 and 1",
        [&] { cache.append(2, zeros({2, 3, 4}), zeros({2, 3, 3})); }},
       {"KvCache::append: key: shape is [2, 2, 3, 4]; must be [2, n, 4]",
        [&] { cache.append(0, k, v); }},
       {"KvCache::append: value: shape is [2, 2, 3]; must be [2, 3, 3]",
        [&] { cache.append(0, zeros({2, 3, 4}), zeros({2, 2, 3})); }},
       {"KvCache::truncate: sequence: got -1; must be between 0 and 1",
        [&] { cache.truncate(-1, 0); }},
       {"KvCache::reset: sequence: got 2; must be between 0 and 1", [&] { cache.reset(2); }},
       {"KvCache::length: sequence: got 2; must be between 0 and 1",
        [&] { (void)cache.length(2); }},
       {"KvCache::first_kept: sequence: got 2; must be between 0 and 1",
        [&] { (void)cache.first_kept(2); }}});
}

TEST(KvCache, TooLong) {
  KvCache cache({.num_kv_heads = 1, .head_dim = 1, .page_len = 32, .num_pages = 2, .window = 1});
  const float one = 1;
  const int64_t shape[] = {1, 1, int64_t{1} << 31, 1}, strides[] = {0, 0, 0, 0};
  const ConstTensorView endless(&one, DType::kFloat32, shape, strides);
  EXPECT_EQ(message_of([&] { cache.append(endless, endless); }),
            "KvCache::append: key: 2147483648 positions, with 0 in sequence 0; must be at most "
            "2147483647 together");
  EXPECT_EQ(message_of([&] { cache.append(endless.narrow(2, 0, 65), endless.narrow(2, 0, 65)); }),
            needs_pages(3, 2, 2));
  EXPECT_EQ(cache.length(0), 0);
}

TEST(KvCache, ForgottenPositionsDoNotComeBack) {
  KvCache::Config config = small();
  config.batch = 1;
  config.window = 10;
  KvCache cache(config);
  for (int n = 0; n < 3; ++n) cache.append(zeros({1, 2, 30, 4}), zeros({1, 2, 30, 3}));
  ASSERT_EQ(cache.first_kept(0), 32);
  EXPECT_EQ(
      message_of([&] { cache.truncate(0, 40); }),
      "KvCache::truncate: length: got 40, which would see from 31 on; must be 0, or such that "
      "it sees from 32 on: the rest is forgotten");
  EXPECT_EQ(cache.length(0), 90);
  const auto attend = [&](int64_t q_len, const std::vector<Mask>& masks = {Mask::causal()}) {
    Tensor query(DType::kFloat32, {1, 2, q_len, 4}), out(DType::kFloat32, {1, 2, q_len, 3});
    attention_forward(query, cache, {.masks = masks}, {.out = out});
  };
  const auto refusal = [](int64_t q_len, int64_t first) {
    return message("attention_forward: query: ", q_len, " queries of sequence 0, which see from ",
                   "position ", first, " on; must be those that see from 32 on: the rest is ",
                   "forgotten");
  };
  EXPECT_EQ(message_of([&] { attend(50); }), refusal(50, 31));
  attend(49);
  for (const int64_t offset : {40, 2, -7}) {
    EXPECT_EQ(message_of([&] { attend(1, {Mask::causal(offset)}); }),
              refusal(1, std::max<int64_t>(offset - 9, 0)));
  }
  attend(1, {Mask::causal(41)});
  const std::vector<Mask> two_places[] = {{Mask::window(3, 0), Mask::causal(50)},
                                          {Mask::causal(50), Mask::window(3, 0)},
                                          {Mask::causal(50), Mask::window(3, 0, 51)}};
  for (const std::vector<Mask>& masks : two_places) {
    EXPECT_EQ(message_of([&] { attend(1, masks); }),
              "attention_forward: masks[1]: its offset is another than that of a mask before it; "
              "must be the same for all, over a cache with a window");
  }
  attend(1, {Mask::causal(50), Mask::window(3, 0, 50)});
  cache.truncate(0, 41);
  EXPECT_EQ(cache.length(0), 41);
  cache.append(zeros({1, 2, 1, 4}), zeros({1, 2, 1, 3}));
  attend(1);
}

// Sequences of 4 and 0 positions.
class KvCacheQueries : public ::testing::Test {
 protected:
  struct Case {
    std::string message;
    ConstTensorView query;
    AttentionOptions options = {};
  };
  KvCache cache{small()};

  KvCacheQueries() { append(cache, {4, 0}); }
  static AttentionOptions packed(const int64_t* bounds, int64_t count) {
    AttentionOptions options{.masks = {Mask::causal()}};
    options.cu_seqlens_q = {bounds, {count}};
    return options;
  }
  void expect_refused(const std::vector<Case>& cases) const {
    Tensor out(DType::kFloat32, {64});
    fill(out, 77);
    for (const Case& bad : cases) {
      TensorView to = out.view();
      if (bad.query.rank() == 4) {
        const int64_t shape[] = {bad.query.size(0), bad.query.size(1), bad.query.size(2), 3};
        to = TensorView(out.data(), DType::kFloat32, shape);
      }
      EXPECT_EQ(message_of([&] { attention_forward(bad.query, cache, bad.options, {.out = to}); }),
                bad.message);
    }
    for_each_index(out.shape(), [&](const Index& at) { EXPECT_EQ(read(out, at), 77); });
  }
};

TEST_F(KvCacheQueries, Shapes) {
  expect_refused(
      {{"attention_forward: query: shape is [3, 2, 1, 4]; must be [2, H, L, 4] for this cache",
        zeros({3, 2, 1, 4})},
       {"attention_forward: query: shape is [2, 2, 1, 5]; must be [2, H, L, 4] for this cache",
        zeros({2, 2, 1, 5})},
       {"attention_forward: query: num_heads is 3; must be a multiple of the cache's 2",
        zeros({2, 3, 1, 4})},
       {"attention_forward: query: dtype is float64; must be the cache's float32",
        zeros({2, 2, 1, 4}, DType::kFloat64)},
       {"attention_forward: query: not given; must be [2, H, L, 4] for this cache", {}}});
}

TEST_F(KvCacheQueries, PositionsAndOptions) {
  static constexpr int64_t kBounds[] = {0, 1, 1}, kFive[] = {0, 5, 5};
  static constexpr float kSlopes[] = {1, std::numeric_limits<float>::infinity()};
  AttentionOptions with_keys = packed(kBounds, 3);
  with_keys.cu_seqlens_k = with_keys.cu_seqlens_q;
  const ConstTensorView one = zeros({2, 2, 1, 4}), of_packed = zeros({1, 2, 1, 4});
  expect_refused(
      {{"attention_forward: query: 1 queries of sequence 1, which has 0 positions; must be no more "
        "than these: append first",
        one},
       {"attention_forward: query: 5 queries of sequence 0, which has 4 positions; must be no more "
        "than these: append first",
        zeros({1, 2, 5, 4}), packed(kFive, 3)},
       {"attention_forward: cu_seqlens_q: shape is [2]; must be [3]", of_packed,
        packed(kBounds, 2)},
       {"attention_forward: cu_seqlens_k: given, with a cache; must be undefined", of_packed,
        with_keys},
       {"attention_forward: dropout_p: got 0.5, with a cache; must be 0", one, {.dropout_p = 0.5}},
       {"attention_forward: masks[1]: key lengths, with a cache; must be another mask: it has its "
        "own",
        one,
        {.masks = {Mask::causal(), Mask::key_lengths({kBounds, {2}})}}},
       {"attention_forward: masks[0]: the slope of head 1 is inf; must be a finite float32, also "
        "times the distance 5",
        one,
        {.masks = {Mask::alibi({kSlopes, {2}})}}},
       {"attention_forward: masks[0]: size 1 is 5 in [1, 5]; must be 1 or kv_len = 4",
        one,
        {.masks = {Mask::additive(zeros({1, 5}))}}}});
}

// A batch in which only one sequence has queries, and one without any.
TEST(KvCache, SequencesWithoutQueries) {
  KvCache cache(small());
  append(cache, {4, 0});
  static constexpr int32_t kOne[] = {0, 1, 1}, kNone[] = {0, 0, 0};
  Tensor out(DType::kFloat32, {1, 2, 1, 3});
  AttentionOptions options;
  options.cu_seqlens_q = {kOne, {3}};
  attention_forward(zeros({1, 2, 1, 4}), cache, options, {.out = out});
  options.cu_seqlens_q = {kNone, {3}};
  attention_forward(zeros({1, 2, 0, 4}), cache, options, {.out = out.view().narrow(2, 0, 0)});
  append(cache, {0, 0});
  EXPECT_EQ(cache.length(0), 4);
}

TEST(KvCache, Moves) {
  KvCache one(small());
  append(one, {5, 6});
  KvCache two(std::move(one));
  EXPECT_EQ(two.length(1), 6);
  one = std::move(two);
  EXPECT_EQ(one.length(0), 5);
}

}  // namespace
}  // namespace polyhead::oracle
