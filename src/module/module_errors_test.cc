// Every wrong argument: what was got, what is needed, and no output touched.
#include <functional>
#include <limits>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <polyhead/error.h>
#include <polyhead/multihead_attention.h>
#include "module/module_test_tools.h"
#include "testing/compare.h"

namespace polyhead {
namespace {

using ::testing::HasSubstr;

// The message of the InvalidArgument that `body` must throw.
std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "nothing thrown";
}

Tensor zeros(std::initializer_list<int64_t> shape, DType dtype = DType::kFloat32) {
  return Tensor(dtype, shape);
}

constexpr MultiheadAttention::Config kConfig{
    .embed_dim = 64, .num_heads = 4, .layout = Layout::kBatchFirst, .kdim = 64, .vdim = 48};

TEST(ModuleErrors, Constructor) {
  const auto with = [](const std::function<void(MultiheadAttention::Config&)>& change) {
    MultiheadAttention::Config config = kConfig;
    change(config);
    return error_of([&] { MultiheadAttention module(config); });
  };
  using Config = MultiheadAttention::Config;
  EXPECT_EQ(with([](Config& c) { c.embed_dim = 0; }),
            "MultiheadAttention: embed_dim: got 0; must be greater than 0");
  EXPECT_EQ(with([](Config& c) { c.num_heads = -1; }),
            "MultiheadAttention: num_heads: got -1; must be greater than 0");
  EXPECT_EQ(with([](Config& c) { c.num_heads = 5; }),
            "MultiheadAttention: num_heads: got 5; must be a divisor of embed_dim 64");
  EXPECT_EQ(with([](Config& c) { c.layout = Layout::kUnset; }),
            "MultiheadAttention: layout: not said; must be Layout::kBatchFirst or "
            "Layout::kSequenceFirst");
  EXPECT_EQ(with([](Config& c) { c.kdim = -3; }),
            "MultiheadAttention: kdim: got -3; must be greater than 0");
  EXPECT_EQ(with([](Config& c) { c.vdim = -3; }),
            "MultiheadAttention: vdim: got -3; must be greater than 0");
  EXPECT_EQ(with([](Config& c) { c.dropout = 1.5; }),
            "MultiheadAttention: dropout: got 1.5; must be between 0 and 1");
  EXPECT_THAT(with([](Config& c) { c.dropout = std::numeric_limits<double>::quiet_NaN(); }),
              HasSubstr("dropout: got nan"));
  EXPECT_EQ(with([](Config& c) { c.dtype = DType::kFloat16; }),
            "MultiheadAttention: dtype: got float16; must be float32 or float64");
  EXPECT_THAT(with([](Config& c) { c.embed_dim = c.num_heads = int64_t{1} << 62; }),
              HasSubstr("head_dim: got 1; must be smaller"));
}

TEST(ModuleErrors, Heads) {
  const auto with = [](int64_t num_heads, int64_t num_kv_heads, int64_t head_dim) {
    MultiheadAttention::Config config = kConfig;
    config.num_heads = num_heads;
    config.num_kv_heads = num_kv_heads;
    config.head_dim = head_dim;
    return error_of([&] { MultiheadAttention module(config); });
  };
  EXPECT_EQ(with(4, 2, 0), "nothing thrown");
  EXPECT_EQ(with(5, 5, 3), "nothing thrown");  // then embed_dim need not be divided
  EXPECT_EQ(with(4, 3, 0),
            "MultiheadAttention: num_kv_heads: got 3; must be a divisor of num_heads 4");
  EXPECT_EQ(with(4, 8, 0),
            "MultiheadAttention: num_kv_heads: got 8; must be a divisor of num_heads 4");
  EXPECT_EQ(with(4, -1, 0), "MultiheadAttention: num_kv_heads: got -1; must be greater than 0");
  EXPECT_EQ(with(4, 0, -16), "MultiheadAttention: head_dim: got -16; must be greater than 0");
  EXPECT_EQ(with(4, 0, int64_t{1} << 60),
            "MultiheadAttention: head_dim: got 1152921504606846976; must be smaller");
}

TEST(ModuleErrors, FromScratchConstructor) {
  const auto make = [](int64_t embed, int64_t heads, HeadWidth width, DType dtype) {
    return error_of([&] { FromScratchMultiHeadAttention module(embed, heads, width, 0, dtype); });
  };
  const DType f32 = DType::kFloat32;
  EXPECT_THAT(make(10, 3, HeadWidth::kSplit, f32),
              HasSubstr("Embedding size needs to be divisible by num_heads"));
  EXPECT_THAT(make(10, 3, HeadWidth::kSplit, f32), HasSubstr("embed_size 10 and num_heads 3"));
  EXPECT_EQ(make(10, 3, HeadWidth::kFull, f32), "nothing thrown");
  EXPECT_THAT(make(10, 0, HeadWidth::kSplit, f32), HasSubstr("num_heads: got 0"));
  EXPECT_THAT(make(0, 1, HeadWidth::kSplit, f32), HasSubstr("embed_size: got 0"));
  EXPECT_THAT(make(10, 2, HeadWidth::kSplit, DType::kInt32), HasSubstr("dtype: got int32"));
  EXPECT_THAT(make(int64_t{1} << 40, int64_t{1} << 40, HeadWidth::kFull, f32),
              HasSubstr("num_heads"));
}

// One forward with one thing wrong; checks that nothing was written.
struct Attempt {
  Tensor query = zeros({2, 5, 64}), key = zeros({2, 9, 64}), value = zeros({2, 9, 48});
  Tensor attn_mask = {}, key_padding_mask = {};
  WeightsMode need_weights = WeightsMode::kNone;
  Tensor out = zeros({2, 5, 64}), weights = {};

  std::string error() {
    static const MultiheadAttention module(kConfig);
    Tensor before;
    if (out.defined()) {
      if (out.dtype() == DType::kFloat32) oracle::fill(out, 7);
      before = out;
    }
    const std::string text = error_of([&] {
      module.forward_into(query, key, value,
                          {.attn_mask = attn_mask.view(),
                           .key_padding_mask = key_padding_mask.view(),
                           .need_weights = need_weights},
                          out, weights);
    });
    if (out.defined() && text != "nothing thrown" && out.dtype() == DType::kFloat32) {
      oracle::expect_same_bits(out, before, "untouched");
    }
    return text;
  }
};

TEST(ModuleErrors, Operands) {
  EXPECT_EQ(Attempt{}.error(), "nothing thrown");
  EXPECT_EQ(Attempt{.query = {}}.error(), "MultiheadAttention: query: not given; must be a tensor");
  EXPECT_EQ(Attempt{.query = zeros({64})}.error(),
            "MultiheadAttention: query: shape is [64]; must be 3-D (batched) or 2-D (unbatched)");
  EXPECT_EQ(Attempt{.query = zeros({2, 5, 48})}.error(),
            "MultiheadAttention: query: embed dim is 48 in [2, 5, 48]; must be 64 (embed_dim)");
  EXPECT_EQ(Attempt{.key = zeros({2, 9, 48})}.error(),
            "MultiheadAttention: key: embed dim is 48 in [2, 9, 48]; must be 64 (kdim)");
  EXPECT_EQ(Attempt{.value = zeros({2, 9, 64})}.error(),
            "MultiheadAttention: value: embed dim is 64 in [2, 9, 64]; must be 48 (vdim)");
  EXPECT_EQ(Attempt{.key = zeros({9, 64})}.error(),
            "MultiheadAttention: key: shape is [9, 64]; must be 3-D, as query is");
  EXPECT_EQ(Attempt{.key = zeros({3, 9, 64})}.error(),
            "MultiheadAttention: key: batch is 3; must be query's 2");
  EXPECT_EQ(Attempt{.value = zeros({1, 9, 48})}.error(),
            "MultiheadAttention: value: batch is 1; must be query's 2");
  EXPECT_EQ(Attempt{.value = zeros({2, 11, 48})}.error(),
            "MultiheadAttention: value: length is 11; must be key's 9");
  EXPECT_EQ(Attempt{.query = zeros({2, 5, 64}, DType::kFloat64)}.error(),
            "MultiheadAttention: query: dtype is float64; must be float32, the module's");
  EXPECT_EQ(Attempt{.value = zeros({2, 9, 48}, DType::kInt32)}.error(),
            "MultiheadAttention: value: dtype is int32; must be float32, the module's");
}

TEST(ModuleErrors, Masks) {
  EXPECT_EQ(Attempt{.attn_mask = zeros({9, 5})}.error(),
            "MultiheadAttention: attn_mask: shape is [9, 5]; must be [5, 9] ([L, S])");
  EXPECT_EQ(Attempt{.attn_mask = zeros({1, 9})}.error(),
            "MultiheadAttention: attn_mask: shape is [1, 9]; must be [5, 9] ([L, S])");
  EXPECT_EQ(Attempt{.attn_mask = zeros({2, 5, 9})}.error(),
            "MultiheadAttention: attn_mask: shape is [2, 5, 9]; must be [8, 5, 9] ([B*H, L, S])");
  EXPECT_EQ(Attempt{.attn_mask = zeros({9})}.error(),
            "MultiheadAttention: attn_mask: shape is [9]; must be [L, S], [B*H, L, S] or "
            "broadcastable [1|B, 1|H, 1|L, 1|S]");
  EXPECT_EQ(Attempt{.attn_mask = zeros({2, 3, 5, 9})}.error(),
            "MultiheadAttention: attn_mask: shape is [2, 3, 5, 9], num_heads 3; must be 1 or 4");
  EXPECT_EQ(Attempt{.attn_mask = zeros({5, 9}, DType::kInt64)}.error(),
            "MultiheadAttention: attn_mask: dtype is int64; must be bool or float32");
  EXPECT_EQ(Attempt{.attn_mask = zeros({5, 9}, DType::kFloat64)}.error(),
            "MultiheadAttention: attn_mask: dtype is float64; must be bool or float32");
  EXPECT_EQ(Attempt{.key_padding_mask = zeros({9, 2}, DType::kBool)}.error(),
            "MultiheadAttention: key_padding_mask: shape is [9, 2]; must be [2, 9] ([B, S])");
  EXPECT_EQ(Attempt{.key_padding_mask = zeros({9}, DType::kBool)}.error(),
            "MultiheadAttention: key_padding_mask: shape is [9]; must be [2, 9] ([B, S])");
  EXPECT_EQ(Attempt{.key_padding_mask = zeros({2, 9}, DType::kInt32)}.error(),
            "MultiheadAttention: key_padding_mask: dtype is int32; must be bool or float32");
}

TEST(ModuleErrors, UnbatchedMasks) {
  Attempt unbatched{.query = zeros({5, 64}),
                    .key = zeros({9, 64}),
                    .value = zeros({9, 48}),
                    .out = zeros({5, 64})};
  EXPECT_EQ(unbatched.error(), "nothing thrown");
  unbatched.attn_mask = zeros({8, 5, 9});
  EXPECT_EQ(unbatched.error(),
            "MultiheadAttention: attn_mask: shape is [8, 5, 9]; must be [4, 5, 9] ([H, L, S])");
  unbatched.attn_mask = {};
  unbatched.key_padding_mask = zeros({1, 9}, DType::kBool);
  EXPECT_EQ(unbatched.error(),
            "MultiheadAttention: key_padding_mask: shape is [1, 9]; must be [9] ([S])");
}

TEST(ModuleErrors, Outputs) {
  EXPECT_EQ(Attempt{.out = {}}.error(), "MultiheadAttention: out: not given; must be a tensor");
  EXPECT_EQ(Attempt{.out = zeros({2, 5, 63})}.error(),
            "MultiheadAttention: out: shape is [2, 5, 63]; must be [2, 5, 64]");
  EXPECT_EQ(Attempt{.out = zeros({2, 5, 64}, DType::kFloat64)}.error(),
            "MultiheadAttention: out: dtype is float64; must be float32, the module's");
  EXPECT_EQ(Attempt{.weights = zeros({2, 5, 9})}.error(),
            "MultiheadAttention: weights: given, with WeightsMode::kNone; must be undefined");
  EXPECT_EQ(Attempt{.need_weights = WeightsMode::kAverage}.error(),
            "MultiheadAttention: weights: not given; must be a tensor");
  EXPECT_EQ(Attempt({.need_weights = WeightsMode::kPerHead, .weights = zeros({2, 5, 9})}).error(),
            "MultiheadAttention: weights: shape is [2, 5, 9]; must be [2, 4, 5, 9]");
}

TEST(ModuleErrors, SequenceFirstShapesAreTheCallers) {
  const MultiheadAttention module(
      {.embed_dim = 8, .num_heads = 2, .layout = Layout::kSequenceFirst});
  const Tensor query = zeros({5, 2, 8}), key = zeros({9, 3, 8});
  EXPECT_EQ(error_of([&] { module.forward(query, key, key); }),
            "MultiheadAttention: key: batch is 3; must be query's 2");
}

TEST(ModuleErrors, FromScratch) {
  const FromScratchMultiHeadAttention module(8, 2);
  const Tensor q = zeros({2, 5, 8}), k = zeros({2, 9, 8});
  const auto forward = [&](const Tensor& query, const Tensor& key, const Tensor& value,
                           const Tensor& mask) {
    return error_of([&] { module.forward(query, key, value, mask.view()); });
  };
  const std::string name = "FromScratchMultiHeadAttention: ";
  EXPECT_EQ(forward(zeros({5, 8}), k, k, {}), name + "q: shape is [5, 8]; must be 3-D");
  EXPECT_EQ(forward(q, zeros({2, 9, 7}), k, {}),
            name + "k: embed dim is 7 in [2, 9, 7]; must be 8 (embed_size)");
  EXPECT_EQ(forward(q, k, zeros({2, 7, 8}), {}), name + "v: length is 7; must be k's 9");
  EXPECT_EQ(forward(q, zeros({1, 9, 8}), zeros({1, 9, 8}), {}),
            name + "k: batch is 1; must be q's 2");
  EXPECT_EQ(forward(q, k, k, zeros({2, 9})),
            name + "mask: shape is [1, 1, 2, 9], query length 2; must be 1 or 5");
  EXPECT_EQ(forward(q, k, k, zeros({3, 1, 1, 1, 9})),
            name + "mask: shape is [3, 1, 1, 1, 9]; must be at most 4-D");
  EXPECT_EQ(forward(q, k, k, zeros({9}, DType::kFloat16)),
            name + "mask: dtype is float16; must be float32, float64, bool, int32 or int64");
  // A mask may not enlarge the scores.
  EXPECT_EQ(forward(zeros({1, 5, 8}), zeros({1, 9, 8}), zeros({1, 9, 8}), zeros({2, 1, 1, 9})),
            name + "mask: shape is [2, 1, 1, 9], batch 2; must be 1");
}

TEST(ModuleErrors, SetParameter) {
  MultiheadAttention module({.embed_dim = 8, .num_heads = 2, .layout = Layout::kBatchFirst});
  EXPECT_EQ(error_of([&] { module.set_parameter("fc.weight", zeros({8, 8})); }),
            "MultiheadAttention: name: got \"fc.weight\"; must be one of in_proj_weight, "
            "in_proj_bias, out_proj.weight, out_proj.bias");
  EXPECT_EQ(error_of([&] { module.set_parameter("in_proj_weight", zeros({8, 24})); }),
            "MultiheadAttention: in_proj_weight: shape is [8, 24]; must be [24, 8]");
  EXPECT_EQ(error_of([&] { module.set_parameter("in_proj_bias", zeros({24}, DType::kFloat64)); }),
            "MultiheadAttention: in_proj_bias: dtype is float64; must be float32, the module's");
}

}  // namespace
}  // namespace polyhead
