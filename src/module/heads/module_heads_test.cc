// Heads that torch's class has not: fewer of key and value than of query, and of any width. What
// they compute, bit for bit, and how files hold them.
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <polyhead/error.h>
#include <polyhead/io.h>
#include <unistd.h>
#include "base/message.h"
#include "module/module_test_tools.h"
#include "module/recognise.h"
#include "testing/compare.h"

namespace polyhead {
namespace {

using oracle::expect_same_bits;
using oracle::random_mha;
using oracle::random_tensor;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr int64_t kEmbed = 20, kHeads = 6, kKvHeads = 2, kDim = 16;

MultiheadAttention::Config grouped(DType dtype) {
  return {.embed_dim = kEmbed,
          .num_heads = kHeads,
          .layout = Layout::kBatchFirst,
          .add_bias_kv = true,
          .dtype = dtype,
          .num_kv_heads = kKvHeads,
          .head_dim = kDim};
}

ConstTensorView find(const MultiheadAttention& module, const std::string& name) {
  for (const auto& [known, view] : module.state_dict()) {
    if (known == name) return view;
  }
  ADD_FAILURE() << name;
  return {};
}

// Rows [heads, kDim] of a parameter, each head as often as query heads read it; the head's
// dimension is `dim`.
Tensor repeated(const ConstTensorView& heads, int dim) {
  std::vector<int64_t> shape(heads.shape().begin(), heads.shape().end());
  shape[static_cast<size_t>(dim)] = kHeads * kDim;
  Tensor result(heads.dtype(), shape);
  oracle::fill_with(result, [&](oracle::Index at) {
    int64_t& row = at[static_cast<size_t>(dim)];
    row = row / kDim / (kHeads / kKvHeads) * kDim + row % kDim;
    return oracle::read(heads, at);
  });
  return result;
}

// The module whose key and value heads are those of `from`, written out.
MultiheadAttention written_out(const MultiheadAttention& from) {
  MultiheadAttention::Config config = from.config();
  config.num_kv_heads = kHeads;
  MultiheadAttention module(config);
  const auto set = [&](const char* name, const Tensor& value) {
    module.set_parameter(name, value);
  };
  const ParameterViews all = module.parameters();
  const ConstTensorView packed_bias = find(from, "in_proj_bias");
  const int64_t width = kHeads * kDim, kv_width = kKvHeads * kDim;
  const Tensor parts[] = {Tensor(find(from, "q_proj_weight")),
                          repeated(find(from, "k_proj_weight"), 0),
                          repeated(find(from, "v_proj_weight"), 0),
                          Tensor(packed_bias.narrow(0, 0, width)),
                          repeated(packed_bias.narrow(0, width, kv_width), 0),
                          repeated(packed_bias.narrow(0, width + kv_width, kv_width), 0)};
  for (int64_t n = 0; n < 3; ++n) {
    const TensorView weight = all[0].second.narrow(0, n * width, width);
    const TensorView bias = all[1].second.narrow(0, n * width, width);
    EXPECT_EQ(all[0].first, "in_proj_weight");
    EXPECT_EQ(all[1].first, "in_proj_bias");
    oracle::fill_with(weight, [&](const oracle::Index& at) {
      return oracle::read(parts[static_cast<size_t>(n)], at);
    });
    oracle::fill_with(bias, [&](const oracle::Index& at) {
      return oracle::read(parts[static_cast<size_t>(3 + n)], at);
    });
  }
  module.repack();
  set("bias_k", repeated(find(from, "bias_k"), 2));
  set("bias_v", repeated(find(from, "bias_v"), 2));
  set("out_proj.weight", Tensor(find(from, "out_proj.weight")));
  set("out_proj.bias", Tensor(find(from, "out_proj.bias")));
  return module;
}

TEST(ModuleHeads, SharedHeadsAreHeadsWrittenOut) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    const MultiheadAttention module = random_mha(grouped(dtype)), wide = written_out(module);
    const Tensor x = random_tensor(dtype, {3, 37, kEmbed}, 1), y(x);
    for (const Tensor* key : {&x, &y}) {
      const ForwardOptions options{.is_causal = true, .need_weights = WeightsMode::kPerHead};
      const MultiheadAttention::Result a = module.forward(x, *key, *key, options),
                                       b = wide.forward(x, *key, *key, options);
      expect_same_bits(a.out, b.out, "out");
      expect_same_bits(a.weights, b.weights, "weights");
    }
  }
}

TEST(ModuleHeads, AWidthOfTheirOwnChangesNothingElse) {
  const MultiheadAttention usual =
      random_mha({.embed_dim = 48, .num_heads = 3, .layout = Layout::kBatchFirst});
  const MultiheadAttention said = random_mha({.embed_dim = 48,
                                              .num_heads = 3,
                                              .layout = Layout::kBatchFirst,
                                              .num_kv_heads = 3,
                                              .head_dim = 16});
  const Tensor x = random_tensor(DType::kFloat32, {2, 9, 48}, 1);
  expect_same_bits(usual.forward(x, x, x).out, said.forward(x, x, x).out, "16 = 48 / 3");
  EXPECT_EQ(usual.config().head_dim, 16);
  EXPECT_EQ(usual.config().num_kv_heads, 3);
}

class ModuleHeadFiles : public ::testing::Test {
 protected:
  ~ModuleHeadFiles() override { std::filesystem::remove(path()); }
  static std::string path() {
    const std::string name = message("polyhead_heads_", getpid(), ".safetensors");
    return (std::filesystem::temp_directory_path() / name).string();
  }
  static MultiheadAttention load(LoadOptions options = {}) {
    options.layout = Layout::kBatchFirst;
    return MultiheadAttention::load(path(), options);
  }
  static std::string error(const LoadOptions& options = {}) {
    try {
      load(options);
    } catch (const InvalidArgument& error) {
      return error.what();
    }
    return "nothing thrown";
  }
};

TEST_F(ModuleHeadFiles, RoundTrip) {
  for (const int64_t kv_heads : {kHeads, kKvHeads, int64_t{1}}) {
    for (const int64_t kdim : {kEmbed, int64_t{7}}) {
      MultiheadAttention::Config config = grouped(DType::kFloat64);
      config.num_kv_heads = kv_heads;
      config.kdim = kdim;
      const MultiheadAttention saved = random_mha(config);
      saved.save(path(), "layer.");
      const MultiheadAttention loaded = load();
      EXPECT_EQ(loaded.config().num_kv_heads, kv_heads);
      EXPECT_EQ(loaded.config().head_dim, kDim);
      EXPECT_EQ(loaded.config().embed_dim, kEmbed);
      EXPECT_EQ(loaded.config().kdim, kdim);
      const auto left = saved.state_dict(), right = loaded.state_dict();
      ASSERT_EQ(left.size(), right.size());
      for (size_t i = 0; i < left.size(); ++i) {
        EXPECT_EQ(left[i].first, right[i].first);
        expect_same_bits(left[i].second, right[i].second, left[i].first);
      }
    }
  }
}

TEST_F(ModuleHeadFiles, HaveTheShapesAndTheNumbersThatTellThemApart) {
  random_mha(grouped(DType::kFloat32)).save(path());
  const SafetensorsFile file(path());
  std::vector<std::string> found;
  for (const SafetensorsEntry& entry : file.entries()) {
    std::string text = entry.name;
    for (int64_t size : entry.shape) text += message(" ", size);
    found.push_back(text);
  }
  EXPECT_THAT(found, ElementsAre("q_proj_weight 96 20", "k_proj_weight 32 20",
                                 "v_proj_weight 32 20", "in_proj_bias 160", "bias_k 1 1 32",
                                 "bias_v 1 1 32", "out_proj.weight 20 96", "out_proj.bias 20"));
  EXPECT_EQ(file.metadata().at("num_heads"), "6");
  EXPECT_EQ(file.metadata().at("num_kv_heads"), "2");
  EXPECT_EQ(recognise_modules(file).at(0).problems.size(), 0U);
}

void save_llama(const std::string& path, const std::map<std::string, std::string>& metadata) {
  const Tensor q(DType::kFloat32, {96, 20}), kv(DType::kFloat32, {32, 20}),
      o(DType::kFloat32, {20, 96});
  const std::string at = "model.layers.0.self_attn.";
  save_safetensors(path,
                   {{at + "q_proj.weight", q.view()},
                    {at + "k_proj.weight", kv.view()},
                    {at + "v_proj.weight", kv.view()},
                    {at + "o_proj.weight", o.view()}},
                   metadata);
}

TEST_F(ModuleHeadFiles, ALlamaFileIsRead) {
  save_llama(path(), {});
  const MultiheadAttention::Config config =
      load({.num_heads = 6, .names = name_maps::llama()}).config();
  EXPECT_EQ(config.num_kv_heads, 2);
  EXPECT_EQ(config.head_dim, 16);
  EXPECT_EQ(config.embed_dim, 20);
  EXPECT_FALSE(config.bias);
}

TEST_F(ModuleHeadFiles, HeadsThatDoNotFitAreRefused) {
  const NameMap llama = name_maps::llama();
  save_llama(path(), {});
  EXPECT_THAT(error({.num_heads = 7, .names = llama}),
              HasSubstr("num_heads: got 7; must be a divisor of the query's width 96"));
  EXPECT_THAT(
      error({.num_heads = 4, .names = llama}),
      HasSubstr("num_heads: got 4; must be one whose heads, of 96 / num_heads rows, make up "
                "the 32 rows of key and value"));
  save_llama(path(), {{"num_heads", "6"}, {"num_kv_heads", "3"}});
  EXPECT_THAT(error({.names = llama}),
              HasSubstr("num_kv_heads: __metadata__ has \"3\"; must be 2, by num_heads 6 and the "
                        "shapes"));
  save_llama(path(), {{"num_heads", "4"}});
  EXPECT_THAT(
      recognise_modules(SafetensorsFile(path())).at(0).problems,
      ElementsAre("num_heads 4 of __metadata__ does not fit: must be one whose heads, of 96 "
                  "/ num_heads rows, make up the 32 rows of key and value"));
}

}  // namespace
}  // namespace polyhead
