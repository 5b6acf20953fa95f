// What a decoder's step refuses, in which words, and that cache and output are as they were then.
#include <functional>
#include <string>

#include <gtest/gtest.h>
#include <polyhead/error.h>
#include "module/module_test_tools.h"
#include "testing/compare.h"

namespace polyhead {
namespace {

using oracle::random_mha;
using oracle::random_tensor;

using Config = MultiheadAttention::Config;

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "nothing thrown";
}

Config small() {
  return {.embed_dim = 8,
          .num_heads = 4,
          .layout = Layout::kBatchFirst,
          .num_kv_heads = 2,
          .head_dim = 6};
}

// Two sequences of three tokens each, in two pages of three.
class CachedForwardErrors : public ::testing::Test {
 protected:
  CachedForwardErrors() {
    KvCache::Config config = module_.cache_config(2, 3);
    config.page_len = 32;
    cache_ = KvCache(config);
    module_.forward_cached(tokens(2, 3), &cache_);
    oracle::fill(out_, 77);
  }
  ~CachedForwardErrors() override {
    EXPECT_EQ(cache_.length(0), 3);
    EXPECT_EQ(cache_.length(1), 3);
    EXPECT_EQ(cache_.free_pages(), 1);
    for (int64_t i = 0; i < out_.numel(); ++i) EXPECT_EQ(out_.data_as<float>()[i], 77);
  }

  static Tensor tokens(int64_t batch, int64_t len) {
    return random_tensor(DType::kFloat32, {batch, len, 8}, 1);
  }
  std::string with(const ConstTensorView& query, const CachedForwardOptions& options = {}) {
    return error_of([&] { module_.forward_cached_into(query, &cache_, options, out_); });
  }
  std::string with_out(const ConstTensorView& query, const TensorView& out) {
    return error_of([&] { module_.forward_cached_into(query, &cache_, {}, out); });
  }

  MultiheadAttention module_ = random_mha(small());
  KvCache cache_{{.num_kv_heads = 1, .head_dim = 1, .page_len = 32, .num_pages = 1}};
  Tensor out_{DType::kFloat32, {2, 3, 8}};
};

TEST_F(CachedForwardErrors, Queries) {
  EXPECT_EQ(with({}), "MultiheadAttention: query: not given; must be a tensor");
  EXPECT_EQ(with(tokens(3, 3)), "MultiheadAttention: query: batch is 3; must be 2, as the cache's");
  EXPECT_EQ(with(random_tensor(DType::kFloat32, {2, 3, 9}, 1)),
            "MultiheadAttention: query: embed dim is 9 in [2, 3, 9]; must be 8 (embed_dim)");
  EXPECT_EQ(with(random_tensor(DType::kFloat64, {2, 3, 8}, 1)),
            "MultiheadAttention: query: dtype is float64; must be float32, the module's");
  EXPECT_EQ(with_out(tokens(2, 2), out_),
            "MultiheadAttention: out: shape is [2, 3, 8]; must be [2, 2, 8]");
  EXPECT_EQ(with_out(tokens(2, 3), {}), "MultiheadAttention: out: not given; must be a tensor");
}

TEST_F(CachedForwardErrors, Room) {
  out_ = Tensor(DType::kFloat32, {2, 62, 8});
  oracle::fill(out_, 77);
  EXPECT_EQ(with(tokens(2, 62)),
            "MultiheadAttention: query: needs 4 more pages; must be at most the 1 of 3 that are "
            "free (reset a sequence, or make a cache with more num_pages)");
  float one[8] = {};
  const int64_t shape[] = {2, int64_t{1} << 31, 8}, strides[] = {0, 0, 1};
  const ConstTensorView endless(one, DType::kFloat32, shape, strides);
  float to[8] = {};
  EXPECT_EQ(
      with_out(endless, TensorView(to, DType::kFloat32, shape, strides)),
      "MultiheadAttention: query: 2147483648 positions, with 3 in sequence 0; must be at most "
      "2147483647 together");
}

TEST_F(CachedForwardErrors, Lengths) {
  const int32_t lengths[] = {3, 4, 1};
  EXPECT_EQ(with(tokens(2, 3), {.lengths = {lengths, {3}}}),
            "MultiheadAttention: lengths: shape is [3]; must be [2]");
  EXPECT_EQ(with(tokens(2, 3), {.lengths = {lengths, {2}}}),
            "MultiheadAttention: lengths[1]: got 4; must be between 0 and query's 3");
  const float floats[] = {1, 2};
  EXPECT_EQ(with(tokens(2, 3), {.lengths = {floats, {2}}}),
            "MultiheadAttention: lengths: dtype is float32; must be int32 or int64");
}

TEST_F(CachedForwardErrors, OneSequence) {
  const int64_t lengths[] = {1, 2};
  const Tensor rows = random_tensor(DType::kFloat32, {3, 8}, 1);
  EXPECT_EQ(with(rows, {.lengths = {lengths, {2}}}),
            "MultiheadAttention: lengths: given, with an unbatched query; must be undefined");
  EXPECT_EQ(with(rows, {.sequence = 2}),
            "MultiheadAttention: sequence: got 2; must be between 0 and 1");
  EXPECT_EQ(with(rows, {.sequence = -1}),
            "MultiheadAttention: sequence: got -1; must be between 0 and 1");
  EXPECT_EQ(with(tokens(2, 3), {.sequence = 1}),
            "MultiheadAttention: sequence: got 1, with a batched query; must be 0");
}

TEST_F(CachedForwardErrors, Modules) {
  const auto of = [&](const std::function<void(Config&)>& change) {
    Config config = small();
    change(config);
    const MultiheadAttention module(config);
    const Tensor x = random_tensor(config.dtype, {2, 3, config.embed_dim}, 1);
    return error_of([&] { module.forward_cached(x, &cache_); });
  };
  EXPECT_EQ(of([](Config& c) { c.add_bias_kv = true; }),
            "MultiheadAttention: cache: given, to a module with add_bias_kv or add_zero_attn; must "
            "be for one without");
  EXPECT_EQ(of([](Config& c) { c.add_zero_attn = true; }),
            of([](Config& c) { c.add_bias_kv = true; }));
  EXPECT_EQ(of([](Config& c) { c.kdim = 5; }),
            "MultiheadAttention: cache: given, to a module of kdim 5 and vdim 8; must be for one "
            "whose tokens are query, key and value: 8");
  EXPECT_EQ(of([](Config& c) { c.num_kv_heads = 1; }),
            "MultiheadAttention: cache: num_kv_heads is 2; must be 1, as the module's");
  EXPECT_EQ(of([](Config& c) { c.head_dim = 7; }),
            "MultiheadAttention: cache: head_dim is 6; must be 7, as the module's");
  EXPECT_EQ(of([](Config& c) { c.dtype = DType::kFloat64; }),
            "MultiheadAttention: cache: dtype is float32; must be float64, the module's");
  KvCache::Config narrow = module_.cache_config(2, 3);
  narrow.v_head_dim = 5;
  KvCache other(narrow);
  EXPECT_EQ(error_of([&] { module_.forward_cached(tokens(2, 3), &other); }),
            "MultiheadAttention: cache: v_head_dim is 5; must be 6, as the module's");
  EXPECT_EQ(error_of([&] { module_.forward_cached(tokens(2, 3), nullptr); }),
            "MultiheadAttention: cache: is null; must be given");
}

TEST(CachedForwardConfig, IsTheModules) {
  const KvCache::Config config = MultiheadAttention(small()).cache_config(5, 7);
  EXPECT_EQ(config.batch, 5);
  EXPECT_EQ(config.num_pages, 7);
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 6);
  EXPECT_EQ(config.v_head_dim, 0);
  EXPECT_EQ(config.dtype, DType::kFloat32);
  EXPECT_EQ(config.window, 0);
}

TEST(CachedForwardConfig, IsRefusedWhereNoCacheCanCome) {
  const auto of = [](int64_t batch, int64_t pages, void (*change)(MultiheadAttention::Config&)) {
    MultiheadAttention::Config config = small();
    change(config);
    const MultiheadAttention module(config);
    return error_of([&] { module.cache_config(batch, pages); });
  };
  const auto same = [](MultiheadAttention::Config&) {};
  EXPECT_EQ(of(0, 1, same), "MultiheadAttention: batch: got 0; must be between 1 and 2147483647");
  EXPECT_EQ(of(-1, 2, same), "MultiheadAttention: batch: got -1; must be between 1 and 2147483647");
  EXPECT_EQ(of(2, 0, same),
            "MultiheadAttention: num_pages: got 0; must be between 1 and 2147483647");
  EXPECT_EQ(of(2, int64_t{1} << 62, same),
            "MultiheadAttention: num_pages: got 4611686018427387904; must be between 1 and "
            "2147483647");
  EXPECT_EQ(of(1, 1, [](MultiheadAttention::Config& c) { c.add_bias_kv = true; }),
            "MultiheadAttention: cache_config: asked of a module with add_bias_kv or "
            "add_zero_attn; must be for one without");
  EXPECT_EQ(of(1, 1, [](MultiheadAttention::Config& c) { c.add_zero_attn = true; }),
            of(1, 1, [](MultiheadAttention::Config& c) { c.add_bias_kv = true; }));
  EXPECT_EQ(of(1, 1, [](MultiheadAttention::Config& c) { c.kdim = 5; }),
            "MultiheadAttention: cache_config: asked of a module of kdim 5 and vdim 8; must be for "
            "one whose tokens are query, key and value: 8");
}

}  // namespace
}  // namespace polyhead
