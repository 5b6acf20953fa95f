// The double reference of a whole module: its steps against each other, and its budget, which must
// let correct results pass at every size and notice small planted errors.
#include "module/module_reference.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <limits>
#include <numeric>
#include <string>

#include <gtest/gtest.h>
#include <polyhead/error.h>
#include "module/module_test_tools.h"
#include "testing/compare.h"
#include "testing/tolerance.h"

namespace polyhead {
namespace {

using oracle::converted;
using oracle::random_mha;
using oracle::random_tensor;

struct Sizes {
  int64_t batch, q_len, kv_len, embed_dim, heads;
  double deviation = 1;  // of the inputs: larger ones make the softmax peaked
};

// MiniLM's layer, odd sizes, one key, long rows, narrow and wide models, peaked and flat softmax.
constexpr Sizes kSizes[] = {
    {2, 12, 12, 384, 12},     {3, 7, 11, 30, 5},       {1, 5, 1, 16, 2},
    {1, 16, 1500, 64, 4},     {1, 9, 20, 8, 8},        {1, 4, 9, 1024, 16},
    {2, 20, 33, 96, 3, 0.05}, {2, 20, 33, 96, 3, 8.0}, {2, 20, 33, 96, 3, 60}};

struct Problem {
  Problem(const Sizes& s, DType dtype)
      : module(random_mha({.embed_dim = s.embed_dim,
                           .num_heads = s.heads,
                           .layout = Layout::kBatchFirst,
                           .dtype = dtype})),
        query(random_tensor(dtype, {s.batch, s.q_len, s.embed_dim}, 1, s.deviation)),
        key(random_tensor(dtype, {s.batch, s.kv_len, s.embed_dim}, 2, s.deviation)),
        value(random_tensor(dtype, {s.batch, s.kv_len, s.embed_dim}, 3)) {}

  ModuleReference reference(const ForwardOptions& options = {}) const {
    return module_forward_reference(module, query, key, value, options);
  }

  MultiheadAttention module;
  Tensor query, key, value;
};

TEST(ModuleReference, CorrectResultsAreWithinBudget) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    for (const Sizes& sizes : kSizes) {
      const Problem problem(sizes, dtype);
      for (const WeightsMode mode : {WeightsMode::kAverage, WeightsMode::kPerHead}) {
        const ForwardOptions options{.is_causal = sizes.q_len % 2 == 0, .need_weights = mode};
        const ModuleReference truth = problem.reference(options);
        const MultiheadAttention::Result got =
            problem.module.forward(problem.query, problem.key, problem.value, options);
        const std::string suite = std::string("module.sizes.") + dtype_name(dtype);
        const std::string what = truth.probs.shape_string();
        oracle::expect_within_budget(got.out, truth.out, truth.out_budget, {suite + ".out", what});
        oracle::expect_within_budget(got.weights, truth.weights, truth.weights_budget,
                                     {suite + ".weights", what});
      }
    }
  }
}

// How the result of `wrong`, computed in double, compares with the truth of a float32 module.
oracle::Comparison with_defect(const Problem& problem,
                               const std::function<Tensor(const Problem&)>& wrong) {
  const ModuleReference truth = problem.reference();
  return oracle::compare_within_budget(converted(wrong(problem), DType::kFloat32), truth.out,
                                       truth.out_budget, oracle::allowed_use(DType::kFloat32));
}

// A parameter multiplied by `factor` from element `first` on.
Tensor with_scaled_parameter(const Problem& problem, const std::string& name, int64_t first,
                             double factor) {
  MultiheadAttention changed(problem.module.config());
  for (const auto& [known, view] : problem.module.state_dict()) {
    Tensor values(view);
    for (int64_t i = first; known == name && i < values.numel(); ++i) {
      values.data_as<float>()[i] = static_cast<float>(values.data_as<float>()[i] * factor);
    }
    changed.set_parameter(known, values);
  }
  return module_forward_reference(changed, problem.query, problem.key, problem.value).out;
}

TEST(ModuleReference, SmallErrorsAreNoticed) {
  const Problem problem({2, 12, 15, 64, 4}, DType::kFloat32);
  struct Defect {
    const char* what;
    std::function<Tensor(const Problem&)> wrong;
  };
  const Defect defects[] = {
      {"last key dropped",
       [](const Problem& p) {
         const ConstTensorView k = p.key.view(), v = p.value.view();
         return module_forward_reference(p.module, p.query, k.narrow(1, 0, 14), v.narrow(1, 0, 14))
             .out;
       }},
      {"queries scaled by 1.001",
       [](const Problem& p) {
         Tensor weight(p.module.state_dict()[0].second);
         MultiheadAttention changed = random_mha(p.module.config());
         for (int64_t i = 0; i < 64 * 64; ++i) weight.data_as<float>()[i] *= 1.001f;
         changed.set_parameter("in_proj_weight", weight);
         return module_forward_reference(changed, p.query, p.key, p.value).out;
       }},
      {"values scaled by 1.0001",
       [](const Problem& p) {
         return with_scaled_parameter(p, "in_proj_weight", 2 * 64 * 64, 1.0001);
       }},
      {"last column of the output projection skipped",
       [](const Problem& p) {
         return with_scaled_parameter(p, "out_proj.weight", 64 * 64 - 1, 0);
       }},
      {"one output bias lost",
       [](const Problem& p) { return with_scaled_parameter(p, "out_proj.bias", 63, 0); }},
      {"value bias off by 1e-4 of itself",
       [](const Problem& p) { return with_scaled_parameter(p, "in_proj_bias", 2 * 64, 1.0001); }},
      {"causal although not asked for",
       [](const Problem& p) { return p.reference({.is_causal = true}).out; }},
      {"heads rounded to bfloat16's 8 bits",
       [](const Problem& p) {
         Tensor out = p.reference().out;
         for (int64_t i = 0; i < out.numel(); ++i) {
           const double x = out.data_as<double>()[i],
                        unit = std::exp2(std::floor(std::log2(std::abs(x))) - 8);
           out.data_as<double>()[i] = std::round(x / unit) * unit;
         }
         return out;
       }},
  };
  EXPECT_TRUE(with_defect(problem, [](const Problem& p) { return p.reference().out; }).ok);
  for (const Defect& defect : defects) {
    EXPECT_FALSE(with_defect(problem, defect.wrong).ok) << defect.what;
  }
}

TEST(ModuleReference, StepsFollowFromEachOther) {
  const Problem problem({2, 5, 9, 12, 3}, DType::kFloat64);
  const Tensor hidden = oracle::random_hidden({5, 9}, 4);
  const ModuleReference steps = problem.reference(
      {.attn_mask = hidden.view(), .is_causal = true, .need_weights = WeightsMode::kPerHead});
  Tensor scores(DType::kFloat64, steps.scores.shape()), probs = scores;
  oracle::for_each_index(scores.shape(), [&](const oracle::Index& at) {
    const auto [b, h, i, j] = std::array<int64_t, 4>{at[0], at[1], at[2], at[3]};
    double dot = 0;
    for (int64_t d = 4 * h; d < 4 * h + 4; ++d) {
      dot += oracle::read(steps.query, {b, i, d}) * oracle::read(steps.key, {b, j, d});
    }
    oracle::write(scores.view(), at, dot / 2);  // 1 / sqrt(4)
    const bool masked = hidden.data_as<bool>()[i * 9 + j] || j > i;
    EXPECT_EQ(oracle::read(steps.bias, at), masked ? -std::numeric_limits<double>::infinity() : 0);
    oracle::write(probs.view(), at, masked ? 0 : std::exp(dot / 2));
  });
  oracle::expect_same_bits(steps.scores, scores, "scores");
  double* row = probs.data_as<double>();
  for (int64_t n = 0; n < probs.numel() / 9; ++n, row += 9) {
    const double sum = std::accumulate(row, row + 9, 0.0);
    std::transform(row, row + 9, row, [&](double x) { return x / sum; });
  }
  oracle::expect_within_budget(steps.probs, probs, steps.weights_budget,
                               {"module.steps.probs", "softmax of scores + bias"});
}

// Two finfo(float32).min hide in a float32 module and do not in a float64 one.
TEST(ModuleReference, MasksAreSummedInTheModulesDType) {
  for (const DType dtype : {DType::kFloat32, DType::kFloat64}) {
    const Problem problem({1, 3, 4, 8, 2}, dtype);
    Tensor lowest(dtype, {3, 4}), padding(dtype, {1, 4});
    const double min = -static_cast<double>(std::numeric_limits<float>::max());
    oracle::fill(lowest.view().narrow(1, 0, 1), min);
    oracle::fill(padding.view().narrow(1, 0, 1), min);
    const ModuleReference truth =
        problem.reference({.attn_mask = lowest.view(), .key_padding_mask = padding.view()});
    EXPECT_EQ(std::isinf(truth.bias.data_as<double>()[0]), dtype == DType::kFloat32);
  }
}

TEST(ModuleReference, ResultsAreInTheCallersLayout) {
  const MultiheadAttention module =
      random_mha({.embed_dim = 8, .num_heads = 2, .layout = Layout::kSequenceFirst});
  const Tensor x = random_tensor(DType::kFloat32, {5, 3, 8}, 1);
  const ModuleReference truth =
      module_forward_reference(module, x, x, x, {.need_weights = WeightsMode::kAverage});
  EXPECT_EQ(truth.out.shape_string(), "[5, 3, 8]");
  EXPECT_EQ(truth.out_budget.shape_string(), "[5, 3, 8]");
  EXPECT_EQ(truth.weights.shape_string(), "[3, 5, 5]");
  EXPECT_EQ(truth.query.shape_string(), "[3, 5, 8]");
  const ConstTensorView one = x.view().select(1, 0);
  const ModuleReference unbatched =
      module_forward_reference(module, one, one, one, {.need_weights = WeightsMode::kPerHead});
  EXPECT_EQ(unbatched.out.shape_string(), "[5, 8]");
  EXPECT_EQ(unbatched.weights.shape_string(), "[2, 5, 5]");
}

// NaN in a hidden key or value reaches neither the result nor its budget.
TEST(ModuleReference, HiddenKeysReachNothing) {
  Problem problem({1, 4, 6, 8, 2}, DType::kFloat32);
  Tensor hidden(DType::kBool, {1, 6});
  hidden.data_as<bool>()[2] = true;
  const ForwardOptions options{.key_padding_mask = hidden.view()};
  const ModuleReference clean = problem.reference(options);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  oracle::fill(problem.key.view().narrow(1, 2, 1), nan);
  oracle::fill(problem.value.view().narrow(1, 2, 1), nan);
  const ModuleReference dirty = problem.reference(options);
  oracle::expect_same_bits(dirty.out, clean.out, "out");
  oracle::expect_same_bits(dirty.out_budget, clean.out_budget, "budget");
}

TEST(ModuleReference, ResultsAloneAreTheSameBits) {
  const Problem problem({2, 150, 190, 24, 3}, DType::kFloat32);  // more pairs than are done at once
  for (const WeightsMode mode :
       {WeightsMode::kNone, WeightsMode::kAverage, WeightsMode::kPerHead}) {
    const ForwardOptions options{.is_causal = true, .need_weights = mode};
    const ModuleReference all = problem.reference(options);
    const ModuleReference results =
        module_forward_reference(problem.module, problem.query, problem.key, problem.value, options,
                                 ReferenceSteps::kResults);
    EXPECT_TRUE(all.scores.defined() && all.bias.defined() && all.probs.defined());
    EXPECT_FALSE(results.scores.defined() || results.bias.defined() || results.probs.defined());
    oracle::expect_same_bits(results.heads, all.heads, "heads");
    oracle::expect_same_bits(results.out, all.out, "out");
    oracle::expect_same_bits(results.out_budget, all.out_budget, "out_budget");
    if (mode == WeightsMode::kNone) continue;
    oracle::expect_same_bits(results.weights, all.weights, "weights");
    oracle::expect_same_bits(results.weights_budget, all.weights_budget, "weights_budget");
  }
}

TEST(ModuleReference, RefusesWhatWouldTakeTooMuchMemory) {
  const Problem problem({1, 30'000, 30'000, 2, 1}, DType::kFloat32);
  try {
    problem.reference({.need_weights = WeightsMode::kAverage});
    FAIL() << "nothing thrown";
  } catch (const Unsupported& error) {
    EXPECT_NE(std::string(error.what()).find("30000 queries and 30000 keys take 57600000000 bytes"),
              std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace polyhead
