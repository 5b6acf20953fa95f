// The op against the double reference in every regime of scores: a kernel that is right on
// well-behaved numbers only is wrong.
#include <cmath>
#include <limits>

#include <gtest/gtest.h>
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64};
constexpr auto kCausal = Mask::Kind::kCausal;
constexpr auto kAdditive = Mask::Kind::kAdditive;

class AttentionRegimes : public ::testing::TestWithParam<Regime> {
 protected:
  // One line of the ledger for each regime.
  std::string suite() const {
    std::string name = std::string("regime.") + regime_name(GetParam());
    for (char& c : name) c = c == ' ' ? '_' : c;
    return name;
  }
};

TEST_P(AttentionRegimes, WithoutMasks) {
  for (DType dtype : kDTypes) {
    check_case({.heads = 3,
                .kv_heads = 3,
                .q_len = 50,
                .kv_len = 201,
                .head_dim = 16,
                .v_head_dim = 16,
                .dtype = dtype,
                .regime = GetParam(),
                .weights = WeightsMode::kPerHead},
               suite());
    check_case({.heads = 1,
                .kv_heads = 1,
                .q_len = 17,
                .kv_len = 130,
                .head_dim = 64,
                .v_head_dim = 64,
                .dtype = dtype,
                .regime = GetParam()},
               suite());
  }
}

TEST_P(AttentionRegimes, AcrossChunks) {
  for (DType dtype : kDTypes) {
    check_case({.heads = 1,
                .kv_heads = 1,
                .q_len = 5,
                .kv_len = 2100,
                .dtype = dtype,
                .regime = GetParam(),
                .weights = WeightsMode::kAverage},
               suite());
  }
}

TEST_P(AttentionRegimes, WithMasks) {
  for (DType dtype : kDTypes) {
    for (const MaskSpec& mask :
         {MaskSpec{.kind = kCausal}, MaskSpec{.kind = kAdditive, .dims = "hls", .density = 0.5},
          MaskSpec{.pattern = MaskPattern::kEmptyRows},
          MaskSpec{.dims = "hls", .pattern = MaskPattern::kOneKey},
          MaskSpec{.dims = "b11s", .pattern = MaskPattern::kPadding}}) {
      check_case({.batch = 2,
                  .q_len = 26,
                  .kv_len = 90,
                  .dtype = dtype,
                  .regime = GetParam(),
                  .masks = {mask},
                  .weights = WeightsMode::kAverage},
                 suite());
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, AttentionRegimes, ::testing::ValuesIn(kRegimes));

// A mask of finfo.min is visible, unlike -inf: beside other keys its weight is 0, alone the row is
// uniform; two of them add up to -inf in the query's dtype. The truth is that of an equal problem
// without such numbers, whose budget they would blow up.
TEST(AttentionExtremes, SmallestFiniteMask) {
  for (DType dtype : kDTypes) {
    const bool single = dtype == DType::kFloat32;
    const double lowest = single ? static_cast<double>(std::numeric_limits<float>::lowest())
                                 : std::numeric_limits<double>::lowest();
    const MaskSpec additive = {.kind = kAdditive, .density = 0, .dtype = dtype};
    const AttentionProblem extreme({.q_len = 6,
                                    .kv_len = 20,
                                    .dtype = dtype,
                                    .masks = {additive, additive},
                                    .weights = WeightsMode::kPerHead});
    const AttentionProblem equal({.q_len = 6,
                                  .kv_len = 20,
                                  .dtype = dtype,
                                  .masks = {{.density = 0}},
                                  .weights = WeightsMode::kPerHead});
    const auto hidden = [](const Index& at) { return at[0] == 1 || (at[0] > 1 && at[1] % 2 == 1); };
    fill_with(extreme.mask_tensors[0].view(),
              [&](const Index& at) { return at[0] == 0 || hidden(at) ? lowest : 0.0; });
    fill_with(extreme.mask_tensors[1].view(),
              [&](const Index& at) { return at[0] == 1 ? lowest : 0.0; });
    const TensorView mask = equal.mask_tensors[0].view();
    for_each_index(mask.shape(), [&](const Index& at) {
      mask.data_as<bool>()[offset_of(mask, at)] = hidden(at);
    });
    fill(equal.query.view().narrow(2, 0, 1), 0);  // all scores equal
    const AttentionTruth truth = truth_of(equal.call());
    const AttentionCall call = extreme.call();
    for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
      const AttentionRun run = run_attention_case(call, plan);
      const std::string suite = std::string("extremes.") + dtype_name(dtype);
      expect_within_budget(run.out.view(), truth.reference.out, truth.reference.out_budget,
                           {suite + ".out", what});
      expect_within_budget(run.weights.view(), truth.weights, truth.weights_budget,
                           {suite + ".weights", what});
    });
  }
}

// +inf and NaN in a float mask make their own row NaN, weights too, but for its masked pairs.
TEST(AttentionExtremes, InfiniteAndNanMasks) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  for (DType dtype : kDTypes) {
    const AttentionProblem problem({.q_len = 20,
                                    .kv_len = 30,
                                    .dtype = dtype,
                                    .masks = {{.kind = kAdditive, .density = 0, .dtype = dtype}},
                                    .weights = WeightsMode::kPerHead});
    write(problem.mask_tensors[0].view(), {2, 11}, kInf);
    write(problem.mask_tensors[0].view(), {2, 3}, -kInf);
    write(problem.mask_tensors[0].view(), {5, 29}, std::nan(""));
    const AttentionCall call = problem.call();
    const AttentionTruth truth = truth_of(call);
    ASSERT_TRUE(std::isnan(read(truth.reference.out, {0, 0, 2, 0})));
    for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
      expect_truth(run_attention_case(call, plan), truth, "extremes", what);
    });
  }
}

// A visible score that overflows to -inf has probability 0, times its value; whether another row's
// mask made the granule PARTIAL must not show.
TEST(AttentionExtremes, OverflownScoreIsNotAMask) {
  const AttentionProblem problem({.heads = 1,
                                  .kv_heads = 1,
                                  .q_len = 2,
                                  .kv_len = 8,
                                  .head_dim = 1,
                                  .v_head_dim = 1,
                                  .scale = 1});
  fill(problem.query.view(), 1e30);
  fill(problem.key.view(), 0);
  fill(problem.value.view(), 1);
  write(problem.key.view(), {0, 0, 0, 0}, -1e30);
  write(problem.value.view(), {0, 0, 0, 0}, std::numeric_limits<double>::infinity());
  const std::vector<Mask> masks = {Mask::causal(CausalAlign::kBottomRight)};
  AttentionCall both = problem.call(), last = both;
  both.masks = last.masks = masks;
  last.query = both.query.narrow(2, 1, 1);
  for_each_isa([&](const std::string&) {
    EXPECT_TRUE(std::isnan(read(run_attention_case(both).out.view(), {0, 0, 1, 0})));
    EXPECT_TRUE(std::isnan(read(run_attention_case(last).out.view(), {0, 0, 0, 0})));
  });
}

// The largest values for which a chunk's sums stay finite though the maximum lags by 16: 1024 keys,
// each 15.9 above the first eight.
TEST(AttentionExtremes, LargestValuesUnderTheLag) {
  const AttentionProblem problem(
      {.q_len = 3, .kv_len = 1032, .masks = {{.kind = kAdditive, .dims = "1s", .density = 0}}});
  fill(problem.query.view(), 0);
  fill_with(problem.mask_tensors[0].view(), [](const Index& at) { return at[1] < 8 ? 0.0 : 15.9; });
  fill(problem.value.view(), 0x1p93);
  const AttentionCall call = problem.call();
  const AttentionTruth truth = truth_of(call);
  for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
    expect_truth(run_attention_case(call, plan), truth, "extremes", what);
  });
}

// Scores of +-inf and NaN reach their own row alone.
TEST(AttentionExtremes, InfiniteAndNanQueriesStayInTheirRow) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  for (DType dtype : kDTypes) {
    const AttentionProblem problem(
        {.q_len = 20, .kv_len = 30, .dtype = dtype, .weights = WeightsMode::kPerHead});
    write(problem.query.view(), {0, 0, 3, 2}, std::nan(""));
    write(problem.query.view(), {0, 1, 7, 0}, kInf);
    const AttentionCall call = problem.call();
    const AttentionTruth truth = truth_of(call);
    ASSERT_TRUE(std::isnan(read(truth.reference.out, {0, 0, 3, 0})));
    for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
      expect_truth(run_attention_case(call, plan), truth, "extremes", what);
    });
  }
}

TEST(AttentionExtremes, NanKeysAndValuesReachEveryRowThatSeesThem) {
  for (DType dtype : kDTypes) {
    const AttentionProblem problem({.q_len = 20,
                                    .kv_len = 30,
                                    .dtype = dtype,
                                    .masks = {{.kind = kCausal}},
                                    .weights = WeightsMode::kPerHead});
    write(problem.key.view(), {0, 0, 11, 2}, std::nan(""));
    write(problem.value.view(), {0, 1, 13, 2}, std::nan(""));
    const AttentionCall call = problem.call();
    const AttentionTruth truth = truth_of(call);
    ASSERT_TRUE(std::isnan(read(truth.reference.out, {0, 0, 11, 0})));
    ASSERT_FALSE(std::isnan(read(truth.reference.out, {0, 0, 10, 0})));
    for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
      expect_truth(run_attention_case(call, plan), truth, "extremes", what);
    });
  }
}

}  // namespace
}  // namespace polyhead::oracle
