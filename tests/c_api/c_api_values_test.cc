// Through the C ABI come the bits of the C++ API, with every option set: none is dropped on the
// way.
#include <array>
#include <cmath>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/c_api.h>
#include <polyhead/polyhead.h>
#include "module/module_test_tools.h"
#include "tests/c_api/both.h"

namespace polyhead {
namespace {

using oracle::Both;
using oracle::ok;
using oracle::random_hidden;
using oracle::random_tensor;
using oracle::sized;

::testing::AssertionResult same_bits(const ConstTensorView& a, const ConstTensorView& b) {
  const size_t bytes = static_cast<size_t>(a.numel()) * dtype_bytes(a.dtype());
  if (a.numel() != b.numel() || std::memcmp(a.data(), b.data(), bytes) != 0) {
    return ::testing::AssertionFailure() << "different bits";
  }
  return ::testing::AssertionSuccess();
}

struct AttentionOp {
  Both query{random_tensor(DType::kFloat64, {2, 4, 6, 8}, 1)};
  Both key{random_tensor(DType::kFloat64, {2, 2, 9, 8}, 2)};
  Both value{random_tensor(DType::kFloat64, {2, 2, 9, 3}, 3)};
  Both hidden{random_hidden({2, 1, 1, 9}, 4)};
  Both added{random_tensor(DType::kFloat64, {4, 6, 9}, 5)};

  // Through C and through C++; both must agree, and the C++ result is returned.
  Tensor run(const polyhead_attention_options& c_options, const AttentionOptions& options) const {
    Both out{Tensor(DType::kFloat64, {2, 4, 6, 3})}, lse{Tensor(DType::kFloat64, {2, 4, 6})},
        rest{random_tensor(DType::kFloat64, {2, 4, 6}, 10)};
    Both weights{options.weights == WeightsMode::kAverage ? Tensor(DType::kFloat64, {2, 6, 9})
                                                          : Tensor(DType::kFloat64, {2, 4, 6, 9})};
    const bool weighs = options.weights != WeightsMode::kNone;
    auto outputs = sized<polyhead_attention_outputs>();
    outputs.out = &out.c;
    outputs.lse = &lse.c;
    outputs.lse_rest = &rest.c;
    outputs.weights = weighs ? &weights.c : nullptr;
    EXPECT_STREQ(ok(polyhead_attention_forward(&c_options, &query.c, &key.c, &value.c, &outputs)),
                 "ok");
    Tensor wanted(DType::kFloat64, {2, 4, 6, 3}), wanted_lse(DType::kFloat64, {2, 4, 6});
    Tensor wanted_weights(DType::kFloat64, weights.view.shape());
    attention_forward(query.view, key.view, value.view, options,
                      {wanted, wanted_lse, weighs ? wanted_weights.view() : TensorView()});
    EXPECT_TRUE(same_bits(out.view, wanted));
    EXPECT_TRUE(same_bits(lse.view, wanted_lse));
    EXPECT_TRUE(same_bits(weights.view, wanted_weights));
    EXPECT_EQ(rest.view.data_as<double>()[47], 0);  // nothing is lost in double
    return wanted;
  }
};

TEST(CApi, AttentionHasTheBitsOfCpp) {
  const AttentionOp op;
  auto c_options = sized<polyhead_attention_options>();
  AttentionOptions options;
  Tensor before = op.run(c_options, options);
  const auto expect_another = [&](const char* option) {
    Tensor now = op.run(c_options, options);
    EXPECT_FALSE(same_bits(before, now)) << option << " changed nothing";
    before = now;
  };
  const double scale = 0.7;
  c_options.scale = &scale;
  options.scale = scale;
  expect_another("scale");
  std::array<polyhead_mask, 4> masks{};
  for (polyhead_mask& mask : masks) mask.struct_size = sizeof mask;
  c_options.masks = masks.data();
  masks[0].tensor = &op.hidden.c;
  options.masks = {Mask::boolean(op.hidden.view, MaskSense::kExcluded)};
  c_options.num_masks = 1;
  expect_another("a boolean mask");
  masks[0].sense = POLYHEAD_INCLUDED;
  options.masks = {Mask::boolean(op.hidden.view, MaskSense::kIncluded)};
  expect_another("its sense");
  masks[1].kind = masks[2].kind = POLYHEAD_MASK_ADDITIVE;
  masks[1].tensor = masks[2].tensor = &op.added.c;
  masks[2].factor = -3;
  options.masks.push_back(Mask::additive(op.added.view));
  c_options.num_masks = 2;
  expect_another("an additive mask");
  options.masks.push_back(Mask::additive(op.added.view, -3));
  c_options.num_masks = 3;
  expect_another("its factor");
  masks[3].kind = POLYHEAD_MASK_CAUSAL;
  c_options.num_masks = 4;
  options.masks.push_back(Mask::causal());
  expect_another("a causal mask");
  masks[3].causal_align = POLYHEAD_BOTTOM_RIGHT;
  options.masks.back() = Mask::causal(CausalAlign::kBottomRight);
  expect_another("its alignment");
  c_options.dropout_p = options.dropout_p = 0.5;
  expect_another("dropout");
  c_options.seed = options.seed = 3;
  expect_another("its seed");
  c_options.dropout_call = options.dropout_call = 4;
  expect_another("its call");
  c_options.plan = options.plan = "reference";
  c_options.weights = POLYHEAD_WEIGHTS_PER_HEAD;
  options.weights = WeightsMode::kPerHead;
  op.run(c_options, options);
  c_options.weights = POLYHEAD_WEIGHTS_AVERAGE;
  options.weights = WeightsMode::kAverage;
  op.run(c_options, options);
}

TEST(CApi, AttentionBackwardHasTheBitsOfCpp) {
  const AttentionOp op;
  const Both out{random_tensor(DType::kFloat64, {2, 4, 6, 3}, 6)};
  const Both lse{random_tensor(DType::kFloat64, {2, 4, 6}, 7)};
  const Both rest{random_tensor(DType::kFloat64, {2, 4, 6}, 10)};
  const Both d_out{random_tensor(DType::kFloat64, {2, 4, 6, 3}, 8)};
  const Both d_weights{random_tensor(DType::kFloat64, {2, 6, 9}, 9)};
  const Both d_query{Tensor(DType::kFloat64, op.query.view.shape())};
  const Both d_key{Tensor(DType::kFloat64, op.key.view.shape())};
  const Both d_value{Tensor(DType::kFloat64, op.value.view.shape())};
  const Both d_added{Tensor(DType::kFloat64, op.added.view.shape())};
  std::array<polyhead_mask, 2> masks{};
  for (polyhead_mask& mask : masks) mask.struct_size = sizeof mask;
  masks[0].tensor = &op.hidden.c;
  masks[1].kind = POLYHEAD_MASK_ADDITIVE;
  masks[1].tensor = &op.added.c;
  masks[1].factor = -3;
  auto c_options = sized<polyhead_attention_options>();
  c_options.masks = masks.data();
  c_options.num_masks = masks.size();
  c_options.weights = POLYHEAD_WEIGHTS_AVERAGE;
  c_options.dropout_p = 0.25;
  auto inputs = sized<polyhead_attention_backward_inputs>();
  inputs.out = &out.c;
  inputs.lse = &lse.c;
  inputs.d_out = &d_out.c;
  inputs.d_weights = &d_weights.c;
  inputs.lse_rest = &rest.c;
  const polyhead_tensor* d_masks[] = {nullptr, &d_added.c};
  auto gradients = sized<polyhead_attention_gradients>();
  gradients.d_query = &d_query.c;
  gradients.d_key = &d_key.c;
  gradients.d_value = &d_value.c;
  gradients.d_masks = d_masks;
  EXPECT_STREQ(ok(polyhead_attention_backward(&c_options, &op.query.c, &op.key.c, &op.value.c,
                                              &inputs, &gradients)),
               "ok");
  Tensor query(DType::kFloat64, op.query.view.shape()), key(DType::kFloat64, op.key.view.shape()),
      value(DType::kFloat64, op.value.view.shape()), added(DType::kFloat64, op.added.view.shape());
  AttentionOptions options;
  options.masks = {Mask::boolean(op.hidden.view, MaskSense::kExcluded),
                   Mask::additive(op.added.view, -3)};
  options.weights = WeightsMode::kAverage;
  options.dropout_p = 0.25;
  attention_backward(op.query.view, op.key.view, op.value.view, options,
                     {out.view, lse.view, d_out.view, d_weights.view, rest.view},
                     {query, key, value, {{}, added}});
  EXPECT_TRUE(same_bits(d_query.view, query));
  EXPECT_TRUE(same_bits(d_key.view, key));
  EXPECT_TRUE(same_bits(d_value.view, value));
  EXPECT_TRUE(same_bits(d_added.view, added));
  EXPECT_NE(query.data_as<double>()[0], 0);
}

TEST(CApi, DropoutMaskIsThatOfCpp) {
  const Both keep{Tensor(DType::kBool, {2, 3, 4, 20})};
  auto c_options = sized<polyhead_attention_options>();
  c_options.dropout_p = 0.5;
  c_options.seed = 77;
  c_options.dropout_call = 5;
  EXPECT_STREQ(ok(polyhead_attention_dropout_mask(&c_options, &keep.c)), "ok");
  Tensor wanted(DType::kBool, {2, 3, 4, 20});
  attention_dropout_mask({.dropout_p = 0.5, .seed = 77, .dropout_call = 5}, wanted);
  EXPECT_TRUE(same_bits(keep.view, wanted));
}

TEST(CApi, EmptyRowsReachTheOp) {
  const AttentionOp op;
  Both all{Tensor(DType::kBool, {1, 9})};
  auto mask = sized<polyhead_mask>();
  mask.tensor = &all.c;
  mask.sense = POLYHEAD_INCLUDED;  // of nothing
  auto c_options = sized<polyhead_attention_options>();
  c_options.masks = &mask;
  c_options.num_masks = 1;
  c_options.empty_rows = POLYHEAD_EMPTY_NAN;
  AttentionOptions options;
  options.masks = {Mask::boolean(all.view, MaskSense::kIncluded)};
  options.empty_rows = EmptyRow::kNan;
  const Tensor nans = op.run(c_options, options);
  c_options.empty_rows = POLYHEAD_EMPTY_ZERO;
  options.empty_rows = EmptyRow::kZero;
  EXPECT_FALSE(same_bits(nans, op.run(c_options, options)));
}

// Every field of the configuration is another value than its default.
struct MhaPair {
  MhaPair() {
    config.embed_dim = 8;
    config.num_heads = 4;
    config.kdim = 5;
    config.vdim = 7;
    config.dropout = 0.25;
    config.seed = 11;
    config.layout = POLYHEAD_SEQUENCE_FIRST;
    config.dtype = POLYHEAD_FLOAT64;
    config.no_bias = config.add_bias_kv = config.add_zero_attn = 1;
    config.num_kv_heads = 2;
    config.head_dim = 6;
    config.qk_norm = 1;
    config.qk_norm_eps = 1e-3;
    config.rope_pairs = POLYHEAD_ROPE_INTERLEAVED;
    config.rope_base = 100;
    config.rope_rotary_dim = 4;
    config.rope_scaling = POLYHEAD_ROPE_SCALING_LLAMA3;
    config.rope_factor = 3;
    config.rope_low_freq_factor = 0.5;
    config.rope_high_freq_factor = 2;
    config.rope_original_length = 16;
    EXPECT_STREQ(ok(polyhead_mha_create(&config, nullptr, 0, &mha)), "ok");
  }
  ~MhaPair() { polyhead_mha_destroy(mha); }
  MhaPair(const MhaPair&) = delete;
  MhaPair& operator=(const MhaPair&) = delete;

  polyhead_mha_config config = sized<polyhead_mha_config>();
  polyhead_mha* mha = nullptr;
  const MultiheadAttention module{{.embed_dim = 8,
                                   .num_heads = 4,
                                   .layout = Layout::kSequenceFirst,
                                   .bias = false,
                                   .add_bias_kv = true,
                                   .add_zero_attn = true,
                                   .kdim = 5,
                                   .vdim = 7,
                                   .dropout = 0.25,
                                   .dtype = DType::kFloat64,
                                   .num_kv_heads = 2,
                                   .head_dim = 6,
                                   .qk_norm = true,
                                   .qk_norm_eps = 1e-3,
                                   .rope = {.pairs = RopePairs::kInterleaved,
                                            .base = 100,
                                            .rotary_dim = 4,
                                            .scaling = RopeScaling::kLlama3,
                                            .factor = 3,
                                            .low_freq_factor = 0.5,
                                            .high_freq_factor = 2,
                                            .original_length = 16}},
                                  11};
};

TEST(CApi, ConfigurationComesBack) {
  MhaPair pair;
  auto got = sized<polyhead_mha_config>();
  ASSERT_STREQ(ok(polyhead_mha_get_config(pair.mha, &got)), "ok");
  pair.config.seed = 0;  // not kept
  EXPECT_EQ(std::memcmp(&got, &pair.config, sizeof got), 0);
}

TEST(CApi, MultiheadAttentionHasTheBitsOfCpp) {
  const MhaPair pair;
  const Both query{random_tensor(DType::kFloat64, {4, 2, 8}, 1)};
  const Both key{random_tensor(DType::kFloat64, {6, 2, 5}, 2)};
  const Both value{random_tensor(DType::kFloat64, {6, 2, 7}, 3)};
  const Both attn_mask{random_hidden({4, 6}, 4)}, padding{random_hidden({2, 6}, 5)};
  const Both out{Tensor(DType::kFloat64, {4, 2, 8})};
  const Both average{Tensor(DType::kFloat64, {2, 4, 8})};
  const Both per_head{Tensor(DType::kFloat64, {2, 4, 4, 8})};
  auto c_options = sized<polyhead_forward_options>();
  ForwardOptions options;
  Tensor before;
  const auto expect_another = [&](const char* option, const Both* weights = nullptr) {
    EXPECT_STREQ(ok(polyhead_mha_forward(pair.mha, &c_options, &query.c, &key.c, &value.c, &out.c,
                                         weights == nullptr ? nullptr : &weights->c)),
                 "ok");
    const auto wanted = pair.module.forward(query.view, key.view, value.view, options);
    EXPECT_TRUE(same_bits(out.view, wanted.out)) << option;
    if (weights != nullptr) {
      EXPECT_TRUE(same_bits(weights->view, wanted.weights)) << option;
    }
    if (before.defined()) {
      EXPECT_FALSE(same_bits(before, wanted.out)) << option << " changed nothing";
    }
    before = wanted.out;
  };
  expect_another("nothing");
  c_options.attn_mask = &attn_mask.c;
  options.attn_mask = attn_mask.view;
  expect_another("attn_mask");
  c_options.key_padding_mask = &padding.c;
  options.key_padding_mask = padding.view;
  expect_another("key_padding_mask");
  c_options.is_causal = 1;
  options.is_causal = true;
  c_options.need_weights = POLYHEAD_WEIGHTS_AVERAGE;
  options.need_weights = WeightsMode::kAverage;
  expect_another("is_causal", &average);
  c_options.causal_align = POLYHEAD_BOTTOM_RIGHT;
  options.causal_align = CausalAlign::kBottomRight;
  c_options.need_weights = POLYHEAD_WEIGHTS_PER_HEAD;
  options.need_weights = WeightsMode::kPerHead;
  expect_another("causal_align", &per_head);
  c_options.query_position = options.query_position = 3;
  expect_another("query_position", &per_head);
  c_options.key_position = options.key_position = 5;
  expect_another("key_position", &per_head);
}

TEST(CApi, EmptyRowsReachTheModule) {
  auto mha_config = sized<polyhead_mha_config>();
  mha_config.embed_dim = 4;
  mha_config.num_heads = 1;
  mha_config.layout = POLYHEAD_BATCH_FIRST;
  polyhead_mha* mha = nullptr;
  ASSERT_STREQ(ok(polyhead_mha_create(&mha_config, nullptr, 0, &mha)), "ok");
  const Both x{random_tensor(DType::kFloat32, {1, 2, 4}, 1)};
  const Both out{Tensor(DType::kFloat32, {1, 2, 4})};
  Tensor every_key(DType::kBool, {2, 2});
  for (int i = 0; i < 4; ++i) every_key.data_as<bool>()[i] = true;
  const Both hidden{every_key};
  auto options = sized<polyhead_forward_options>();
  options.attn_mask = &hidden.c;
  for (const int32_t empty_rows : {POLYHEAD_EMPTY_ZERO, POLYHEAD_EMPTY_NAN}) {
    options.empty_rows = empty_rows;
    EXPECT_STREQ(ok(polyhead_mha_forward(mha, &options, &x.c, &x.c, &x.c, &out.c, nullptr)), "ok");
    EXPECT_EQ(std::isnan(out.view.data_as<float>()[0]), empty_rows == POLYHEAD_EMPTY_NAN);
  }
  polyhead_mha_destroy(mha);
}

TEST(CApi, LoadOptionsReachTheLoader) {
  const std::string path = ::testing::TempDir() + "c_api_values_test.safetensors";
  const MultiheadAttention module = oracle::random_mha(
      {.embed_dim = 8, .num_heads = 2, .layout = Layout::kBatchFirst, .kdim = 4, .vdim = 4});
  NamedTensors renamed;
  for (const auto& [name, view] : module.state_dict()) {
    renamed.emplace_back("x." + (name == "in_proj_bias" ? "biases" : name), view);
  }
  save_safetensors(path, renamed);
  const polyhead_name names[] = {{"biases", "in_proj_bias"}};
  auto options = sized<polyhead_load_options>();
  options.num_heads = 4;
  options.prefix = "x.";
  options.names = names;
  options.num_names = 1;
  options.dropout = 0.5;
  options.layout = POLYHEAD_SEQUENCE_FIRST;
  options.add_zero_attn = 1;
  options.rope_pairs = POLYHEAD_ROPE_HALVES;
  options.rope_base = 500;
  options.rope_scaling = POLYHEAD_ROPE_SCALING_LINEAR;
  options.rope_factor = 2;
  polyhead_mha* mha = nullptr;
  ASSERT_STREQ(ok(polyhead_mha_load(path.c_str(), &options, &mha)), "ok");
  auto config = sized<polyhead_mha_config>();
  ASSERT_STREQ(ok(polyhead_mha_get_config(mha, &config)), "ok");
  EXPECT_EQ(config.num_heads, 4);
  EXPECT_EQ(config.kdim, 4);
  EXPECT_EQ(config.dropout, 0.5);
  EXPECT_EQ(config.layout, POLYHEAD_SEQUENCE_FIRST);
  EXPECT_EQ(config.add_zero_attn, 1);
  EXPECT_EQ(config.rope_pairs, POLYHEAD_ROPE_HALVES);
  EXPECT_EQ(config.rope_base, 500);
  EXPECT_EQ(config.rope_rotary_dim, 2);
  EXPECT_EQ(config.rope_scaling, POLYHEAD_ROPE_SCALING_LINEAR);
  EXPECT_EQ(config.rope_factor, 2);
  for (const auto& [name, view] : module.state_dict()) {
    polyhead_tensor parameter;
    ASSERT_STREQ(ok(polyhead_mha_get_parameter(mha, name.c_str(), &parameter)), "ok");
    EXPECT_EQ(std::memcmp(parameter.data, view.data(), static_cast<size_t>(view.numel()) * 4), 0);
  }
  polyhead_mha_destroy(mha);
  save_safetensors(path, renamed, {{"num_heads", "2"}});
  EXPECT_EQ(polyhead_mha_load(path.c_str(), &options, &mha), POLYHEAD_INVALID_ARGUMENT);
  EXPECT_NE(std::strstr(polyhead_last_error(), "num_heads: got 4; must be 2, by the file's"),
            nullptr)
      << polyhead_last_error();
  std::remove(path.c_str());
}

TEST(CApi, ReadyMadeMapsReachTheLoader) {
  const std::string path = ::testing::TempDir() + "c_api_values_test.safetensors";
  const struct {
    int32_t map;
    NameMap names;
  } maps[] = {{POLYHEAD_MAP_BERT, name_maps::bert()},
              {POLYHEAD_MAP_VIT, name_maps::vit()},
              {POLYHEAD_MAP_LLAMA, name_maps::llama()}};
  const Tensor weight = random_tensor(DType::kFloat32, {8, 8}, 1);
  const Tensor bias = random_tensor(DType::kFloat32, {8}, 2);
  for (const auto& [map, names] : maps) {
    NamedTensors tensors;
    for (const auto& [theirs, ours] : names) {
      tensors.emplace_back(theirs, ours.find("bias") == std::string::npos ? weight : bias);
    }
    save_safetensors(path, tensors);
    auto options = sized<polyhead_load_options>();
    options.num_heads = 2;
    options.layout = POLYHEAD_BATCH_FIRST;
    options.map = map;
    polyhead_mha* mha = nullptr;
    EXPECT_STREQ(ok(polyhead_mha_load(path.c_str(), &options, &mha)), "ok") << map;
    polyhead_mha_destroy(mha);
  }
  std::remove(path.c_str());
}

TEST(CApi, FromScratchHasTheBitsOfCpp) {
  auto config = sized<polyhead_scratch_config>();
  config.embed_size = 6;
  config.num_heads = 3;
  config.seed = 4;
  config.head_width = POLYHEAD_HEAD_FULL;
  config.dtype = POLYHEAD_FLOAT64;
  polyhead_scratch* scratch = nullptr;
  ASSERT_STREQ(ok(polyhead_scratch_create(&config, nullptr, 0, &scratch)), "ok");
  const FromScratchMultiHeadAttention module(6, 3, HeadWidth::kFull, 4, DType::kFloat64);
  const Both q{random_tensor(DType::kFloat64, {2, 4, 6}, 1)};
  const Both k{random_tensor(DType::kFloat64, {2, 5, 6}, 2)};
  const Both v{random_tensor(DType::kFloat64, {2, 5, 6}, 3)};
  const Both mask{random_hidden({2, 1, 1, 5}, 4)};
  const Both out{Tensor(DType::kFloat64, {2, 4, 6})}, average{Tensor(DType::kFloat64, {2, 4, 5})};
  auto options = sized<polyhead_scratch_forward_options>();
  options.mask = &mask.c;
  EXPECT_STREQ(
      ok(polyhead_scratch_forward(scratch, &options, &q.c, &k.c, &v.c, &out.c, &average.c)), "ok");
  Tensor wanted(DType::kFloat64, {2, 4, 6}), weights(DType::kFloat64, {2, 4, 5});
  module.forward_into(q.view, k.view, v.view, mask.view, wanted, weights);
  EXPECT_TRUE(same_bits(out.view, wanted));
  EXPECT_TRUE(same_bits(average.view, weights));
  EXPECT_STREQ(ok(polyhead_scratch_forward(scratch, nullptr, &q.c, &k.c, &v.c, &out.c, nullptr)),
               "ok");
  EXPECT_TRUE(same_bits(out.view, module.forward(q.view, k.view, v.view)));
  polyhead_scratch_destroy(scratch);
}

// One handle, many threads: each gets the bits of a call alone, and its own last error.
TEST(CApi, ThreadsShareAHandle) {
  const MhaPair pair;
  const Both query{random_tensor(DType::kFloat64, {40, 2, 8}, 1)};
  const Both key{random_tensor(DType::kFloat64, {50, 2, 5}, 2)};
  const Both value{random_tensor(DType::kFloat64, {50, 2, 7}, 3)};
  const Tensor wanted = pair.module.forward(query.view, key.view, value.view).out;
  ASSERT_NE(polyhead_set_num_threads(-1), POLYHEAD_OK);
  const std::string ours = polyhead_last_error();
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&, i] {
      EXPECT_STREQ(polyhead_last_error(), "");
      const Both out{Tensor(DType::kFloat64, {40, 2, 8})};
      for (int repeat = 0; repeat < 20; ++repeat) {
        EXPECT_EQ(
            polyhead_mha_forward(pair.mha, nullptr, &query.c, &key.c, &value.c, &out.c, nullptr),
            POLYHEAD_OK);
        EXPECT_TRUE(same_bits(out.view, wanted));
      }
      const std::string name = "isa" + std::to_string(i);
      EXPECT_EQ(polyhead_force_isa(name.c_str()), POLYHEAD_INVALID_ARGUMENT);
      EXPECT_NE(std::strstr(polyhead_last_error(), name.c_str()), nullptr);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(polyhead_last_error(), ours);
}

}  // namespace
}  // namespace polyhead
