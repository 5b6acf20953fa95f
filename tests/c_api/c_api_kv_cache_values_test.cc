// A cache through the C ABI has the bits of one of the C++ API, whatever the options.
#include <cstring>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/c_api.h>
#include <polyhead/polyhead.h>
#include "module/module_test_tools.h"
#include "testing/compare.h"
#include "tests/c_api/both.h"

namespace polyhead {
namespace {

using oracle::Both;
using oracle::expect_same_bits;
using oracle::ok;
using oracle::random_tensor;
using oracle::sized;

constexpr DType kType = DType::kFloat64;

// Every field of the configuration is another value than its default.
class CApiKvCache : public ::testing::Test {
 protected:
  CApiKvCache() {
    auto config = sized<polyhead_kv_cache_config>();
    config.batch = 2;
    config.num_kv_heads = 2;
    config.head_dim = 5;
    config.v_head_dim = 3;
    config.page_len = 64;
    config.num_pages = 9;
    config.window = 30;
    config.dtype = POLYHEAD_FLOAT64;
    EXPECT_STREQ(ok(polyhead_kv_cache_create(&config, &c)), "ok");
    auto got = sized<polyhead_kv_cache_config>();
    EXPECT_STREQ(ok(polyhead_kv_cache_get_config(c, &got)), "ok");
    EXPECT_EQ(std::memcmp(&got, &config, sizeof got), 0);
  }
  ~CApiKvCache() override { polyhead_kv_cache_destroy(c); }

  void expect_same_state() const {
    int64_t n = -1;
    for (const int64_t sequence : {0, 1}) {
      EXPECT_STREQ(ok(polyhead_kv_cache_length(c, sequence, &n)), "ok");
      EXPECT_EQ(n, cpp.length(sequence));
      EXPECT_STREQ(ok(polyhead_kv_cache_first_kept(c, sequence, &n)), "ok");
      EXPECT_EQ(n, cpp.first_kept(sequence));
    }
    EXPECT_STREQ(ok(polyhead_kv_cache_free_pages(c, &n)), "ok");
    EXPECT_EQ(n, cpp.free_pages());
  }

  void append(int64_t count, const std::vector<int64_t>& lengths, uint64_t seed) {
    const Both key{random_tensor(kType, {2, 2, count, 5}, seed)};
    const Both value{random_tensor(kType, {2, 2, count, 3}, seed + 1)};
    ConstTensorView view;
    if (!lengths.empty()) view = {lengths.data(), {2}};
    const polyhead_tensor of_c = oracle::c_tensor(view);
    EXPECT_STREQ(
        ok(polyhead_kv_cache_append(c, &key.c, &value.c, view.defined() ? &of_c : nullptr)), "ok");
    cpp.append(key.view, value.view, view);
    expect_same_state();
  }

  // Both must have been set to the same; gives what came out.
  Tensor expect_same_results(const std::string& what, int64_t batch = 2, int64_t q_len = 6) const {
    const Both query{random_tensor(kType, {batch, 4, q_len, 5}, 9)};
    const Both out{Tensor(kType, {batch, 4, q_len, 3})}, lse{Tensor(kType, {batch, 4, q_len})};
    Tensor want(kType, {batch, 4, q_len, 3}), want_lse(kType, {batch, 4, q_len});
    auto outputs = sized<polyhead_attention_outputs>();
    outputs.out = &out.c;
    outputs.lse = &lse.c;
    EXPECT_STREQ(ok(polyhead_kv_cache_attend(c, &c_options, &query.c, &outputs)), "ok") << what;
    attention_forward(query.view, cpp, options, {.out = want, .lse = want_lse});
    EXPECT_TRUE(expect_same_bits(out.view, want, what + ": out"));
    EXPECT_TRUE(expect_same_bits(lse.view, want_lse, what + ": lse"));
    return want;
  }

  polyhead_kv_cache* c = nullptr;
  KvCache cpp{{.batch = 2,
               .num_kv_heads = 2,
               .head_dim = 5,
               .v_head_dim = 3,
               .dtype = kType,
               .page_len = 64,
               .num_pages = 9,
               .window = 30}};
  polyhead_attention_options c_options = sized<polyhead_attention_options>();
  AttentionOptions options;
};

TEST_F(CApiKvCache, HasTheBitsOfCpp) {
  const Both sinks{random_tensor(kType, {4}, 3)};
  auto mask = sized<polyhead_mask>();
  mask.kind = POLYHEAD_MASK_CAUSAL;
  append(80, {}, 10);
  append(20, {7, 20}, 20);
  const Tensor plain = expect_same_results("no option");
  c_options.masks = &mask;
  c_options.num_masks = 1;
  options.masks = {Mask::causal()};
  const Tensor causal = expect_same_results("causal");
  EXPECT_FALSE(oracle::compare_bits(causal, plain).ok);
  c_options.sinks = &sinks.c;
  options.sinks = sinks.view;
  EXPECT_FALSE(oracle::compare_bits(expect_same_results("sinks"), causal).ok);
  const std::vector<int64_t> bounds = {0, 1, 6};
  options.cu_seqlens_q = {bounds.data(), {3}};
  const polyhead_tensor of_c = oracle::c_tensor(options.cu_seqlens_q);
  c_options.cu_seqlens_q = &of_c;
  expect_same_results("packed", 1);
}

TEST_F(CApiKvCache, CutsAndForgetsAsCpp) {
  append(200, {}, 10);
  EXPECT_STREQ(ok(polyhead_kv_cache_truncate(c, 1, 180)), "ok");
  cpp.truncate(1, 180);
  append(3, {0, 3}, 20);
  const Both key{random_tensor(kType, {2, 4, 5}, 30)}, value{random_tensor(kType, {2, 4, 3}, 31)};
  EXPECT_STREQ(ok(polyhead_kv_cache_append_sequence(c, 0, &key.c, &value.c)), "ok");
  cpp.append(0, key.view, value.view);
  expect_same_state();
  EXPECT_GT(cpp.first_kept(0), 0);
  expect_same_results("after a cut");
  EXPECT_STREQ(ok(polyhead_kv_cache_reset_sequence(c, 0)), "ok");
  cpp.reset(0);
  expect_same_state();
  EXPECT_STREQ(ok(polyhead_kv_cache_reset(c)), "ok");
  cpp.reset();
  expect_same_state();
}

// A step of each shape: of all sequences, of some tokens of each, and of one sequence.
TEST(CApiForwardCached, HasTheBitsOfCpp) {
  auto config = sized<polyhead_mha_config>();
  config.embed_dim = 8;
  config.num_heads = 4;
  config.num_kv_heads = 2;
  config.seed = 11;
  config.layout = POLYHEAD_SEQUENCE_FIRST;
  config.dtype = POLYHEAD_FLOAT64;
  config.qk_norm = 1;
  config.rope_pairs = POLYHEAD_ROPE_HALVES;
  polyhead_mha* mha = nullptr;
  ASSERT_STREQ(ok(polyhead_mha_create(&config, nullptr, 0, &mha)), "ok");
  const MultiheadAttention module({.embed_dim = 8,
                                   .num_heads = 4,
                                   .layout = Layout::kSequenceFirst,
                                   .dtype = kType,
                                   .num_kv_heads = 2,
                                   .qk_norm = true,
                                   .rope = {.pairs = RopePairs::kHalves}},
                                  11);
  KvCache cpp(module.cache_config(2, 4));
  auto cached = sized<polyhead_kv_cache_config>();
  polyhead_kv_cache* c = nullptr;
  ASSERT_STREQ(ok(polyhead_mha_cache_config(mha, 2, 4, &cached)), "ok");
  ASSERT_STREQ(ok(polyhead_kv_cache_create(&cached, &c)), "ok");
  const int64_t lengths[] = {1, 5};
  const ConstTensorView of_lengths(lengths, {2});
  const polyhead_tensor c_lengths = oracle::c_tensor(of_lengths);
  const auto expect_same = [&](std::initializer_list<int64_t> shape,
                               const polyhead_cached_forward_options& c_options,
                               const CachedForwardOptions& options) {
    const Both query{random_tensor(kType, shape, 9)}, out{Tensor(kType, shape)};
    EXPECT_STREQ(ok(polyhead_mha_forward_cached(mha, &c_options, c, &query.c, &out.c)), "ok");
    EXPECT_TRUE(
        expect_same_bits(out.view, module.forward_cached(query.view, &cpp, options), "step"));
  };
  auto options = sized<polyhead_cached_forward_options>();
  expect_same({40, 2, 8}, options, {});
  options.lengths = &c_lengths;
  expect_same({5, 2, 8}, options, {.lengths = of_lengths});
  options.lengths = nullptr;
  options.sequence = 1;
  expect_same({3, 8}, options, {.sequence = 1});
  int64_t n = -1;
  EXPECT_STREQ(ok(polyhead_kv_cache_length(c, 1, &n)), "ok");
  EXPECT_EQ(n, 48);
  EXPECT_EQ(cpp.length(1), 48);
  polyhead_kv_cache_destroy(c);
  polyhead_mha_destroy(mha);
}

}  // namespace
}  // namespace polyhead
