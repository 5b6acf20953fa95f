// The initial parameters: torch's distributions, torch's order, and the same bits everywhere.
#include "module/initialise.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/multihead_attention.h>
#include "base/random.h"
#include "testing/compare.h"
#include "testing/elements.h"

namespace polyhead {
namespace {

std::vector<double> numbers(const ConstTensorView& view) {
  std::vector<double> result;
  oracle::for_each_index(
      view.shape(), [&](const oracle::Index& at) { result.push_back(oracle::read(view, at)); });
  return result;
}

ConstTensorView find(const std::vector<std::pair<std::string, ConstTensorView>>& dict,
                     const std::string& name) {
  for (const auto& [known, view] : dict) {
    if (known == name) return view;
  }
  ADD_FAILURE() << name;
  return {};
}

// Kolmogorov's distance of a sample from a distribution function, in units of 1 / sqrt(n). A right
// sample exceeds 2.5 once in 10^5 seeds, and the seeds here are fixed.
template <class Distribution>
double distance(std::vector<double> sample, const Distribution& below) {
  std::sort(sample.begin(), sample.end());
  const auto n = static_cast<double>(sample.size());
  double worst = 0;
  for (size_t i = 0; i < sample.size(); ++i) {
    const double p = below(sample[i]), rank = static_cast<double>(i);
    worst = std::max({worst, std::abs(p - rank / n), std::abs(p - (rank + 1) / n)});
  }
  return worst * std::sqrt(n);
}
constexpr double kFarAway = 2.5;

void expect_uniform(const ConstTensorView& view, double bound, const std::string& what) {
  const auto below = [&](double x) { return std::clamp((x / bound + 1) / 2, 0.0, 1.0); };
  EXPECT_LT(distance(numbers(view), below), kFarAway) << what;
  const auto narrower = [&](double x) { return std::clamp((x / bound * 0.9 + 1) / 2, 0.0, 1.0); };
  EXPECT_GT(distance(numbers(view), narrower), kFarAway) << what << ": too few to tell";
}

MultiheadAttention module(bool separate, uint64_t seed = 3) {
  return MultiheadAttention({.embed_dim = 96,
                             .num_heads = 4,
                             .layout = Layout::kBatchFirst,
                             .add_bias_kv = true,
                             .kdim = separate ? 64 : 0,
                             .vdim = separate ? 200 : 0},
                            seed);
}

TEST(Initialise, PackedDistributions) {
  const MultiheadAttention mha = module(false);
  const auto dict = mha.state_dict();
  expect_uniform(find(dict, "out_proj.weight"), 1 / std::sqrt(96.0), "out_proj.weight");
  expect_uniform(find(dict, "in_proj_weight"), std::sqrt(6 / (4 * 96.0)), "in_proj_weight");
  for (const char* name : {"in_proj_bias", "out_proj.bias"}) {
    for (double x : numbers(find(dict, name))) EXPECT_EQ(x, 0);
  }
}

TEST(Initialise, SeparateDistributions) {
  const MultiheadAttention mha = module(true);
  const auto dict = mha.state_dict();
  expect_uniform(find(dict, "q_proj_weight"), std::sqrt(6 / (96.0 + 96)), "q_proj_weight");
  expect_uniform(find(dict, "k_proj_weight"), std::sqrt(6 / (96.0 + 64)), "k_proj_weight");
  expect_uniform(find(dict, "v_proj_weight"), std::sqrt(6 / (96.0 + 200)), "v_proj_weight");
}

TEST(Initialise, FromScratchIsLinearsDefault) {
  const FromScratchMultiHeadAttention scratch(60, 5, HeadWidth::kFull, 3);
  const auto dict = scratch.state_dict();
  for (const char* name : {"q_linear.weight", "k_linear.weight", "v_linear.weight", "q_linear.bias",
                           "k_linear.bias", "v_linear.bias"}) {
    const ConstTensorView view = find(dict, name);
    for (double x : numbers(view)) EXPECT_LE(std::abs(x), 1 / std::sqrt(60.0)) << name;
  }
  expect_uniform(find(dict, "q_linear.weight"), 1 / std::sqrt(60.0), "q_linear.weight");
  expect_uniform(find(dict, "fc_out.weight"), 1 / std::sqrt(300.0), "fc_out.weight");
}

TEST(Initialise, NormalNumbersAreNormal) {
  Random random(5);
  std::vector<double> sample(200'000);
  for (double& x : sample) x = random.normal();
  const auto below = [](double x) { return std::erfc(-x / std::sqrt(2.0)) / 2; };
  EXPECT_LT(distance(sample, below), kFarAway);
  EXPECT_GT(distance(sample, [&](double x) { return below(x * 0.98); }), kFarAway);
  // bias_k is N(0, 1/E).
  const MultiheadAttention mha(
      {.embed_dim = 512, .num_heads = 1, .layout = Layout::kBatchFirst, .add_bias_kv = true}, 1);
  const std::vector<double> bias = numbers(find(mha.state_dict(), "bias_k"));
  EXPECT_LT(distance(bias, [&](double x) { return below(x * std::sqrt(512.0)); }), kFarAway);
}

TEST(Initialise, SeedsDecide) {
  const MultiheadAttention a = module(false), b = module(false), c = module(false, 4);
  const auto first = a.state_dict(), again = b.state_dict(), other = c.state_dict();
  for (size_t i = 0; i < first.size(); ++i) {
    oracle::expect_same_bits(first[i].second, again[i].second, first[i].first);
  }
  EXPECT_FALSE(oracle::compare_bits(first[0].second, other[0].second).ok);
}

// The generator is part of the contract: a seed means the same module in every release.
TEST(Initialise, TheGeneratorIsFixed) {
  Random random(0);
  EXPECT_EQ(random.bits(), 0xe220a8397b1dcdafu);
  EXPECT_EQ(random.bits(), 0x6e789e6aa1b965f4u);
  for (double expected :
       {0x1.b39896a51a870p-4, -0x1.657eecdd3cb14p+0, 0x1.3ea7e9cc92144p-2, 0x1.980d862ca5d7ep-1})
    EXPECT_EQ(random.normal(), expected);
}

// out_proj.weight comes first, so it does not depend on what follows.
TEST(Initialise, TheOrderIsTorchs) {
  const MultiheadAttention packed = module(false), separate = module(true);
  oracle::expect_same_bits(find(packed.state_dict(), "out_proj.weight"),
                           find(separate.state_dict(), "out_proj.weight"), "drawn first");
  Random random(3);
  const double first = (2 * random.uniform() - 1) / std::sqrt(96.0);
  EXPECT_EQ(numbers(find(packed.state_dict(), "out_proj.weight"))[0],
            static_cast<double>(static_cast<float>(first)));
  for (int i = 1; i < 96 * 96 + 96; ++i) random.uniform();  // its rest, and the dropped bias
  const double q = std::sqrt(6 / 192.0) * (2 * random.uniform() - 1);
  EXPECT_EQ(numbers(find(separate.state_dict(), "q_proj_weight"))[0],
            static_cast<double>(static_cast<float>(q)));
}

}  // namespace
}  // namespace polyhead
