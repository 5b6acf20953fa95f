// Rotary positions and norms of query and key in a module: against the reference over random
// configurations, what must hold bit for bit, what is refused, and how files hold them.
#include <filesystem>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <polyhead/error.h>
#include <polyhead/io.h>
#include <unistd.h>
#include "base/message.h"
#include "module/module_reference.h"
#include "module/module_test_tools.h"
#include "testing/compare.h"
#include "testing/machine.h"

namespace polyhead {
namespace {

using oracle::expect_same_bits;
using oracle::random_mha;
using oracle::random_tensor;
using ::testing::HasSubstr;
using Config = MultiheadAttention::Config;

constexpr int64_t kEmbed = 40, kLen = 45;

Config config(DType dtype, const Rope& rope, bool norm) {
  return {.embed_dim = kEmbed,
          .num_heads = 4,
          .layout = Layout::kBatchFirst,
          .add_bias_kv = true,
          .dtype = dtype,
          .num_kv_heads = 2,
          .head_dim = 24,
          .qk_norm = norm,
          .rope = rope};
}

const Rope kHalves{.pairs = RopePairs::kHalves}, kNeighbours{.pairs = RopePairs::kInterleaved};

std::vector<Rope> ropes() {
  std::vector<Rope> all = {Rope{}, kHalves, kNeighbours};
  for (const RopeScaling scaling :
       {RopeScaling::kLinear, RopeScaling::kNtk, RopeScaling::kLlama3}) {
    all.push_back({.pairs = RopePairs::kHalves, .rotary_dim = 10, .scaling = scaling, .factor = 4});
  }
  return all;
}

class ModuleRope : public ::testing::TestWithParam<DType> {
 protected:
  Tensor rows(int64_t len, uint64_t seed) const {
    return random_tensor(GetParam(), {3, len, kEmbed}, seed);
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, ModuleRope, ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(ModuleRope, IsTheReferenceOnEveryInstructionSet) {
  const std::string suite = std::string("module.rope.") + dtype_name(GetParam());
  const Tensor x = rows(kLen, 1), y = rows(4, 2);
  for (const Rope& rope : ropes()) {
    const int64_t far = rope.pairs == RopePairs::kNone ? 0 : 100'000;
    const MultiheadAttention module = random_mha(config(GetParam(), rope, rope.factor == 1));
    const ForwardOptions options{
        .need_weights = WeightsMode::kPerHead, .query_position = far, .key_position = far / 2};
    const ModuleReference truth = module_forward_reference(module, x, y, y, options);
    oracle::for_each_isa([&](const std::string& isa) {
      const MultiheadAttention::Result got = module.forward(x, y, y, options);
      const std::string what = message(isa, ", pairs ", static_cast<int>(rope.pairs), ", scaling ",
                                       static_cast<int>(rope.scaling));
      oracle::expect_within_budget(got.out, truth.out, truth.out_budget, {suite + ".out", what});
      oracle::expect_within_budget(got.weights, truth.weights, truth.weights_budget,
                                   {suite + ".weights", what});
    });
  }
}

TEST_P(ModuleRope, EachOptionChangesTheAnswer) {
  const Tensor x = rows(kLen, 1);
  std::vector<Tensor> results;
  const auto add = [&](const Rope& rope, bool norm, int64_t query_position) {
    const MultiheadAttention module = random_mha(config(GetParam(), rope, norm));
    results.push_back(module.forward(x, x, x, {.query_position = query_position}).out);
  };
  add({}, false, 0);
  add({}, true, 0);
  for (const Rope& rope : ropes()) {
    if (rope.pairs != RopePairs::kNone) add(rope, false, 0);
  }
  add({.pairs = RopePairs::kHalves, .base = 100}, false, 0);
  add({.pairs = RopePairs::kHalves, .rotary_dim = 10}, false, 0);
  add(kHalves, false, 1);
  for (size_t i = 0; i < results.size(); ++i) {
    for (size_t j = 0; j < i; ++j) {
      EXPECT_FALSE(oracle::compare_bits(results[i], results[j]).ok) << i << " and " << j;
    }
  }
}

// A sequence in pieces, as a decoder has it: each with its own first position.
TEST_P(ModuleRope, QueriesInPiecesAreAsTogether) {
  for (const Rope& rope : {kHalves, kNeighbours}) {
    const MultiheadAttention module = random_mha(config(GetParam(), rope, true));
    const Tensor x = rows(kLen, 1);
    const Tensor all = module.forward(x, x, x).out;
    for (int64_t first = 0, len = 1; first < kLen; first += len, len = std::min(7L, kLen - first)) {
      const Tensor piece =
          module.forward(x.view().narrow(1, first, len), x, x, {.query_position = first}).out;
      expect_same_bits(piece, all.view().narrow(1, first, len), message("queries from ", first));
    }
  }
}

TEST_P(ModuleRope, PositionZeroTurnsNothing) {
  const MultiheadAttention plain = random_mha(config(GetParam(), {}, false)),
                           turned = random_mha(config(GetParam(), kHalves, false));
  const Tensor x = rows(1, 1);
  expect_same_bits(turned.forward(x, x, x).out, plain.forward(x, x, x).out, "one token");
}

// The interleaved pairs of a module are the halves of one whose projections' rows are in the other
// order: the same mathematics, so within the budget.
TEST_P(ModuleRope, ThePairingsDifferByTheOrderOfRows) {
  const MultiheadAttention halves = random_mha(config(GetParam(), kHalves, false));
  MultiheadAttention neighbours = random_mha(config(GetParam(), kNeighbours, false));
  constexpr int64_t kDim = 24;
  const auto moved = [](int64_t row) {
    const int64_t d = row % kDim;
    return row - d + (d % 2 == 0 ? d / 2 : kDim / 2 + d / 2);
  };
  for (const auto& [name, view] : halves.state_dict()) {
    const bool of_value = name == "v_proj_weight" || name == "bias_v" || name.starts_with("out_");
    Tensor value(view);
    const int dim = name == "bias_k" ? 2 : 0;
    const int64_t kept = name == "in_proj_bias" ? (4 + 2) * kDim : view.size(dim);
    oracle::fill_with(value, [&, source = view](oracle::Index at) {
      int64_t& row = at[static_cast<size_t>(dim)];
      if (!of_value && row < kept) row = moved(row);
      return oracle::read(source, at);
    });
    neighbours.set_parameter(name, value);
  }
  const Tensor x = rows(kLen, 1);
  const ModuleReference truth = module_forward_reference(halves, x, x, x);
  oracle::expect_within_budget(neighbours.forward(x, x, x).out, truth.out, truth.out_budget,
                               {message("module.rope.", dtype_name(GetParam()), ".out")});
}

TEST_P(ModuleRope, ThreadsDoNotMatter) {
  const MultiheadAttention module = random_mha(config(GetParam(), kHalves, true));
  const Tensor x = rows(200, 1), y = rows(70, 2);
  const Tensor together = module.forward(x, x, x).out, apart = module.forward(x, y, y).out;
  for (const int n : {1, 2, 3, 7}) {
    const oracle::Threads threads(n);
    expect_same_bits(module.forward(x, x, x).out, together, message(n, " threads"));
    expect_same_bits(module.forward(x, y, y).out, apart, message(n, " threads, two lengths"));
  }
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "nothing thrown";
}

TEST(ModuleRopeErrors, Configurations) {
  const auto with = [](const Rope& rope) {
    return error_of([&] { MultiheadAttention module(config(DType::kFloat32, rope, false)); });
  };
  const auto changed = [&](const std::function<void(Rope&)>& change) {
    Rope rope = kHalves;
    change(rope);
    return with(rope);
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_EQ(with(kHalves), "nothing thrown");
  EXPECT_EQ(with({.base = 500000}),
            "MultiheadAttention: rope.pairs: not said; must be RopePairs::kHalves or "
            "RopePairs::kInterleaved");
  EXPECT_EQ(changed([](Rope& r) { r.pairs = static_cast<RopePairs>(7); }),
            "MultiheadAttention: rope.pairs: got 7; must be a value of RopePairs");
  EXPECT_EQ(changed([](Rope& r) { r.base = 0; }),
            "MultiheadAttention: rope.base: got 0; must be between 1 and 1e+30");
  EXPECT_THAT(changed([&](Rope& r) { r.base = nan; }), HasSubstr("rope.base: got nan"));
  for (const int64_t dim : {-2, 3, 26}) {
    EXPECT_EQ(changed([&](Rope& r) { r.rotary_dim = dim; }),
              message("MultiheadAttention: rope.rotary_dim: got ", dim,
                      "; must be even, at least 2 and at most head_dim 24"));
  }
  EXPECT_EQ(changed([](Rope& r) { r.factor = 2; }),
            "MultiheadAttention: rope.factor: got 2 without a scaling; must be 1");
  const auto scaled = [&](RopeScaling scaling, const std::function<void(Rope&)>& change) {
    return changed([&](Rope& r) {
      r.scaling = scaling;
      change(r);
    });
  };
  EXPECT_EQ(scaled(static_cast<RopeScaling>(-1), [](Rope&) {}),
            "MultiheadAttention: rope.scaling: got -1; must be a value of RopeScaling");
  EXPECT_THAT(scaled(RopeScaling::kLinear, [](Rope& r) { r.factor = 0.5; }),
              HasSubstr("rope.factor: got 0.5; must be between 1 and 1e+06"));
  EXPECT_THAT(scaled(RopeScaling::kLlama3, [&](Rope& r) { r.low_freq_factor = nan; }),
              HasSubstr("rope.low_freq_factor: got nan"));
  EXPECT_THAT(scaled(RopeScaling::kLlama3, [](Rope& r) { r.high_freq_factor = 1; }),
              HasSubstr("rope.high_freq_factor: got 1; must be greater than low_freq_factor 1"));
  EXPECT_THAT(scaled(RopeScaling::kLlama3, [](Rope& r) { r.original_length = 0; }),
              HasSubstr("rope.original_length: got 0; must be greater than 0"));
}

TEST(ModuleRopeErrors, Norms) {
  const auto with = [](double epsilon) {
    Config given = config(DType::kFloat32, {}, true);
    given.qk_norm_eps = epsilon;
    return error_of([&] { MultiheadAttention module(given); });
  };
  EXPECT_EQ(with(0), "nothing thrown");
  EXPECT_EQ(with(-0.5), "MultiheadAttention: qk_norm_eps: got -0.5; must be between 0 and 1");
  EXPECT_THAT(with(std::numeric_limits<double>::quiet_NaN()), HasSubstr("qk_norm_eps: got nan"));
}

TEST(ModuleRopeErrors, Positions) {
  const auto with = [](const Rope& rope, int64_t query, int64_t key) {
    const MultiheadAttention module(config(DType::kFloat32, rope, false));
    const Tensor x(DType::kFloat32, {1, 3, kEmbed});
    return error_of(
        [&] { module.forward(x, x, x, {.query_position = query, .key_position = key}); });
  };
  constexpr int64_t kLast = (int64_t{1} << 31) - 3;
  EXPECT_EQ(with(kHalves, kLast, 0), "nothing thrown");
  EXPECT_EQ(
      with({}, 1, 0),
      "MultiheadAttention: query_position: got 1, but the module has no rotary positions; must "
      "be 0");
  EXPECT_EQ(with(kHalves, 0, -1),
            "MultiheadAttention: key_position: got -1 for 3 positions; must be 0 or more, and the "
            "last position below 2147483648");
  EXPECT_THAT(with(kHalves, kLast + 1, 0), HasSubstr("query_position: got 2147483646"));
  EXPECT_THAT(with(kHalves, std::numeric_limits<int64_t>::max(), 0), HasSubstr("query_position"));
}

// A causal mask from the first query and key on, of queries that begin elsewhere.
TEST(ModuleRopeErrors, TopLeftOfOtherPositions) {
  const MultiheadAttention module(config(DType::kFloat32, kHalves, false));
  const Tensor x(DType::kFloat32, {1, 3, kEmbed});
  const auto with = [&](CausalAlign align, int64_t query, int64_t key) {
    return error_of([&] {
      module.forward(
          x, x, x,
          {.is_causal = true, .causal_align = align, .query_position = query, .key_position = key});
    });
  };
  EXPECT_EQ(with(CausalAlign::kTopLeft, 3, 0),
            "MultiheadAttention: is_causal: aligned top left, with query_position 3 and "
            "key_position 0; must be aligned bottom right, or with the same position for both");
  EXPECT_THAT(with(CausalAlign::kTopLeft, 0, 3), HasSubstr("is_causal"));
  EXPECT_EQ(with(CausalAlign::kTopLeft, 3, 3), "nothing thrown");
  EXPECT_EQ(with(CausalAlign::kBottomRight, 3, 0), "nothing thrown");
}

class ModuleRopeFiles : public ::testing::Test {
 protected:
  ~ModuleRopeFiles() override { std::filesystem::remove(path()); }
  static std::string path() {
    const std::string name = message("polyhead_rope_", getpid(), ".safetensors");
    return (std::filesystem::temp_directory_path() / name).string();
  }
  static MultiheadAttention load(LoadOptions options = {}) {
    options.layout = Layout::kBatchFirst;
    return MultiheadAttention::load(path(), options);
  }
};

TEST_F(ModuleRopeFiles, RoundTrip) {
  const Tensor x = random_tensor(DType::kFloat64, {2, 9, kEmbed}, 1);
  for (Rope rope : ropes()) {
    for (const bool norm : {false, true}) {
      rope.base = rope.pairs == RopePairs::kNone ? rope.base : 12345.678;
      Config given = config(DType::kFloat64, rope, norm);
      given.qk_norm_eps = 0.001234;
      const MultiheadAttention saved = random_mha(given);
      saved.save(path(), "layer.");
      const MultiheadAttention loaded = load();
      EXPECT_EQ(loaded.config().rope, saved.config().rope);
      EXPECT_EQ(loaded.config().qk_norm, norm);
      expect_same_bits(loaded.forward(x, x, x).out, saved.forward(x, x, x).out, "loaded");
    }
  }
}

TEST_F(ModuleRopeFiles, WhatIsGivenMustNotContradict) {
  random_mha(config(DType::kFloat32, kHalves, true)).save(path());
  EXPECT_EQ(load({.rope = kHalves, .qk_norm_eps = Config().qk_norm_eps}).config().rope.rotary_dim,
            24);
  EXPECT_THAT(error_of([] { load({.rope = kNeighbours}); }),
              HasSubstr("rope: given, but another is in the file's __metadata__"));
  EXPECT_THAT(error_of([] { load({.qk_norm_eps = 0.5}); }),
              HasSubstr("qk_norm_eps: got 0.5; must be 1e-06, by the file's __metadata__"));
  random_mha(config(DType::kFloat32, {}, false)).save(path());
  EXPECT_EQ(load({.rope = kNeighbours}).config().rope.pairs, RopePairs::kInterleaved);
  EXPECT_THAT(error_of([] { load({.qk_norm_eps = 0.5}); }),
              HasSubstr("qk_norm_eps: given, but there is no q_norm.weight"));
}

TEST_F(ModuleRopeFiles, HostileMetadataIsRefused) {
  const MultiheadAttention module = random_mha(config(DType::kFloat32, kHalves, true));
  NamedTensors tensors;
  for (const auto& [name, view] : module.state_dict()) tensors.emplace_back(name, view);
  const auto with = [&](const std::string& key, const std::string& text) {
    std::map<std::string, std::string> metadata = {{"num_heads", "4"}, {"rope_pairs", "halves"}};
    metadata[key] = text;
    save_safetensors(path(), tensors, metadata);
    return error_of([] { load(); });
  };
  EXPECT_EQ(with("other", ""), "nothing thrown");
  EXPECT_THAT(with("rope_pairs", "thirds"),
              HasSubstr("rope_pairs: __metadata__ has \"thirds\"; must be one of halves, "
                        "interleaved"));
  for (const std::string text : {"", "ten", "1e4 ", "1e999", "0x10"}) {
    EXPECT_THAT(with("rope_base", text),
                HasSubstr(message("rope_base: __metadata__ has \"", text, "\"; must be a number")));
  }
  EXPECT_THAT(with("rope_base", "-1"), HasSubstr("rope.base: got -1"));
  EXPECT_THAT(with("rope_base", "nan"), HasSubstr("rope.base: got nan"));
  EXPECT_THAT(with("rope_rotary_dim", "99999999999999999999"), HasSubstr("rope_rotary_dim"));
  EXPECT_THAT(
      with("rope_scaling", "yarn"),
      HasSubstr("rope_scaling: __metadata__ has \"yarn\"; must be one of none, linear, ntk, "
                "llama3"));
  EXPECT_THAT(with("qk_norm_eps", "nan"), HasSubstr("qk_norm_eps: got nan"));
}

TEST_F(ModuleRopeFiles, NormsComeTogetherAndAsWideAsHeads) {
  const Tensor square(DType::kFloat32, {8, 8}), four(DType::kFloat32, {4});
  NamedTensors tensors = {{"q_proj_weight", square.view()},
                          {"k_proj_weight", square.view()},
                          {"v_proj_weight", square.view()},
                          {"out_proj.weight", square.view()},
                          {"q_norm.weight", four.view()}};
  save_safetensors(path(), tensors);
  EXPECT_THAT(error_of([] { load({.num_heads = 2}); }), HasSubstr("missing k_norm.weight [4]"));
  tensors.emplace_back("k_norm.weight", four.view());
  save_safetensors(path(), tensors);
  EXPECT_TRUE(load({.num_heads = 2}).config().qk_norm);
  EXPECT_THAT(error_of([] { load({.num_heads = 4}); }),
              HasSubstr("num_heads: got 4; must be one that makes heads as wide as q_norm.weight, "
                        "4"));
}

}  // namespace
}  // namespace polyhead
