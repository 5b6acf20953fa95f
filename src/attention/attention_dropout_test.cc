// Dropout of the op: the truth under every option, the pairs of the exported mask and no others,
// and the same bits whatever the tiles.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <polyhead/attention.h>
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

constexpr auto kCausal = Mask::Kind::kCausal;
constexpr auto kAdditive = Mask::Kind::kAdditive;
constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64};
constexpr WeightsMode kWeightsModes[] = {WeightsMode::kNone, WeightsMode::kAverage,
                                         WeightsMode::kPerHead};

// Several tiles of queries, and every kind of granule.
AttentionCase usual(DType dtype = DType::kFloat32) {
  return {.batch = 2,
          .heads = 4,
          .kv_heads = 2,
          .q_len = 101,
          .kv_len = 141,
          .head_dim = 20,
          .v_head_dim = 24,
          .extra = 2,
          .dtype = dtype,
          .masks = {{.dims = "hls"}, {.kind = kCausal, .align = CausalAlign::kBottomRight}},
          .dropout_p = 0.1};
}

TEST(AttentionDropout, EveryProbability) {
  for (DType dtype : kDTypes) {
    for (double p : {0x1p-16, 0.1, 0.5, 0.9, 1.0}) {
      for (WeightsMode weights : kWeightsModes) {
        AttentionCase spec = usual(dtype);
        spec.q_len = 53;
        spec.weights = weights;
        spec.dropout_p = p;
        check_case(spec, "dropout");
      }
    }
  }
}

TEST(AttentionDropout, LengthsAndHeadDims) {
  for (DType dtype : kDTypes) {
    for (int64_t q_len : {1, 8, 17, 33, 49}) {
      for (int64_t kv_len : {1, 7, 8, 65, 1030}) {
        check_case({.heads = 1,
                    .kv_heads = 1,
                    .q_len = q_len,
                    .kv_len = kv_len,
                    .head_dim = 5,
                    .v_head_dim = q_len,
                    .dtype = dtype,
                    .weights = WeightsMode::kPerHead,
                    .dropout_p = 0.2},
                   "dropout");
      }
    }
  }
}

TEST(AttentionDropout, EveryRegime) {
  for (DType dtype : kDTypes) {
    for (Regime regime : kRegimes) {
      AttentionCase spec = usual(dtype);
      spec.regime = regime;
      spec.weights = WeightsMode::kPerHead;
      check_case(spec, "dropout");
    }
  }
}

TEST(AttentionDropout, MasksAndLayouts) {
  for (DType dtype : kDTypes) {
    for (const MaskSpec& mask :
         {MaskSpec{.kind = kCausal}, MaskSpec{.dims = "b11s", .pattern = MaskPattern::kPadding},
          MaskSpec{.pattern = MaskPattern::kEmptyRows}, MaskSpec{.pattern = MaskPattern::kOneKey},
          MaskSpec{.kind = kAdditive, .dims = "bhls", .factor = -2}}) {
      for (Storage storage : kStorages) {
        AttentionCase spec = usual(dtype);
        spec.q_len = 30;
        spec.masks = {mask};
        spec.empty_rows = EmptyRow::kNan;
        spec.weights = WeightsMode::kAverage;
        spec.storage = storage;
        spec.dropout_p = 0.3;
        check_case(spec, "dropout");
      }
    }
  }
}

// The reference's weights are those without dropout times the exported mask and 1 / (1 - p).
TEST(AttentionDropout, DropsThePairsOfTheExportedMask) {
  const AttentionProblem problem({.batch = 2,
                                  .heads = 4,
                                  .kv_heads = 2,
                                  .q_len = 11,
                                  .kv_len = 29,
                                  .dtype = DType::kFloat64,
                                  .weights = WeightsMode::kPerHead});
  const AttentionOptions options{.weights = WeightsMode::kPerHead,
                                 .dropout_p = 0.25,
                                 .seed = 0x123456789abcdef0,
                                 .dropout_call = 3};
  Tensor keep(DType::kBool, {2, 4, 11, 29});
  attention_dropout_mask(options, keep.view());
  const Tensor probs = attention_forward_reference(problem.call(), {.probs = true}).probs;
  GuardedTensor out(DType::kFloat64, {2, 4, 11, 8}), weights(DType::kFloat64, {2, 4, 11, 29});
  attention_forward(problem.query.view(), problem.key.view(), problem.value.view(), options,
                    {.out = out.view(), .weights = weights.view()});
  const AttentionTruth truth = truth_of(problem.call());
  Tensor want(DType::kFloat64, probs.shape()), budget(DType::kFloat64, probs.shape());
  fill_with(want, [&](const Index& index) {
    const bool kept = keep.data_as<bool>()[offset_of(keep, index)];
    return kept ? read(probs, index) / 0.75 : 0;
  });
  fill_with(budget, [&](const Index& index) { return read(truth.weights_budget, index) / 0.75; });
  expect_within_budget(weights.view(), want, budget, {"dropout.mask"});
}

TEST(AttentionDropout, SeedAndCallChooseThePairs) {
  const AttentionProblem problem(usual());
  const auto out_of = [&](uint64_t seed, uint32_t call) {
    GuardedTensor out(DType::kFloat32, {2, 4, 101, 24});
    attention_forward(problem.query.view(), problem.key.view(), problem.value.view(),
                      {.dropout_p = 0.1, .seed = seed, .dropout_call = call}, {.out = out.view()});
    return out;
  };
  const GuardedTensor first = out_of(1, 0);
  expect_same_bits(out_of(1, 0).view(), first.view(), "again");
  EXPECT_FALSE(compare_bits(out_of(2, 0).view(), first.view()).ok);
  EXPECT_FALSE(compare_bits(out_of(1 + (uint64_t{1} << 32), 0).view(), first.view()).ok);
  EXPECT_FALSE(compare_bits(out_of(1, 1).view(), first.view()).ok);
}

TEST(AttentionDropout, NoneOfItLeavesTheBitsAlone) {
  for (DType dtype : kDTypes) {
    AttentionCase spec = usual(dtype);
    spec.weights = WeightsMode::kPerHead;
    spec.dropout_p = 0;
    const AttentionProblem without(spec);
    spec.dropout_p = 0x1p-18;  // rounds to 0
    const AttentionProblem hardly(spec);
    for_each_kernel(without.call(), [&](const std::string& plan, const std::string& what) {
      expect_same_run(run_attention_case(hardly.call(), plan),
                      run_attention_case(without.call(), plan), what);
    });
  }
}

TEST(AttentionDropout, AllOfItLeavesZeros) {
  for (WeightsMode weights : {WeightsMode::kAverage, WeightsMode::kPerHead}) {
    AttentionCase spec = usual();
    spec.weights = weights;
    spec.dropout_p = 1;
    const AttentionProblem problem(spec);
    for_each_kernel(problem.call(), [&](const std::string& plan, const std::string& what) {
      const AttentionRun run = run_attention_case(problem.call(), plan);
      const Tensor out(run.out.view()), lefts(run.weights.view());
      expect_same_bits(out, Tensor(DType::kFloat32, out.shape()), what);
      expect_same_bits(lefts, Tensor(DType::kFloat32, lefts.shape()), what);
    });
  }
}

TEST(AttentionDropout, LseDoesNotFeelIt) {
  AttentionCase spec = usual();
  const AttentionProblem some(spec);
  spec.dropout_p = 0;
  const AttentionProblem none(spec);
  expect_same_bits(run_attention_case(some.call()).lse.view(),
                   run_attention_case(none.call()).lse.view(), "lse");
}

// A dropped value is not touched: NaN there reaches the rows that keep it, and no others.
TEST(AttentionDropout, NothingOfADroppedValueReachesTheRow) {
  for (DType dtype : kDTypes) {
    AttentionCase spec = usual(dtype);
    spec.masks = {{.kind = kCausal}};
    spec.dropout_p = 0.5;
    const AttentionProblem clean(spec), spoiled(spec);
    constexpr int64_t kKey = 42;
    const double bad[] = {std::numeric_limits<double>::quiet_NaN(),
                          std::numeric_limits<double>::infinity()};
    fill_with(spoiled.value.view().narrow(2, kKey, 1),
              [&](const Index& index) { return bad[index[3] % 2]; });
    const AttentionCall call = clean.call();
    for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
      const AttentionRun expected = run_attention_case(call, plan);
      const AttentionRun run = run_attention_case(spoiled.call(), plan);
      int64_t rows[2] = {};
      for_each_index(run.out.view().shape(), [&](const Index& at) {
        const bool reaches = at[2] >= kKey && call.kept(at[0], at[1], at[2], kKey) > 0;
        const double got = read(run.out.view(), at);
        ++rows[reaches];
        ASSERT_EQ(std::isfinite(got), !reaches) << what << index_string(at, 4);
        ASSERT_TRUE(reaches || got == read(expected.out.view(), at)) << what << index_string(at, 4);
      });
      EXPECT_GT(rows[0], 0);
      EXPECT_GT(rows[1], 0);
    });
  }
}

// A score of NaN makes all of its row NaN, dropped or not.
TEST(AttentionDropout, ANaNScoreIsSeenThroughAnyDropout) {
  for (double p : {0.5, 1.0}) {
    AttentionCase spec = usual();
    spec.weights = WeightsMode::kPerHead;
    spec.masks = {};
    spec.dropout_p = p;
    const AttentionProblem problem(spec);
    fill(problem.query.view().narrow(2, 3, 1), std::numeric_limits<double>::quiet_NaN());
    const AttentionCall call = problem.call();
    const AttentionTruth truth = truth_of(call);
    for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
      expect_truth(run_attention_case(call, plan), truth, "dropout", what);
    });
  }
}

class AttentionDropoutBits : public ::testing::TestWithParam<DType> {};
INSTANTIATE_TEST_SUITE_P(DTypes, AttentionDropoutBits,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(AttentionDropoutBits, AnyNumberOfThreads) {
  for (WeightsMode weights : kWeightsModes) {
    AttentionCase spec = usual(GetParam());
    spec.weights = weights;
    const AttentionProblem problem(spec);
    const Threads one(1);
    const AttentionRun alone = run_attention_case(problem.call());
    for (int n : {2, 3, 7}) {
      const Threads several(n);
      expect_same_run(run_attention_case(problem.call()), alone, std::to_string(n) + " threads");
    }
  }
}

TEST_P(AttentionDropoutBits, EveryIsaWithFmaAndEveryPlan) {
  if (isas_with_fma().empty()) GTEST_SKIP() << "no instruction set with fused multiply-add";
  size_t num_runs = 0;
  for (int64_t q_len : {1, 9, 20, 40, 101}) {
    AttentionCase spec = usual(GetParam());
    spec.q_len = q_len;
    spec.masks = {{.dims = "ls"}};  // of all heads: both plans support it
    const AttentionProblem problem(spec);
    std::vector<AttentionRun> runs;
    for (const std::string& isa : isas_with_fma()) {
      const ForcedIsa forced(isa);
      for (const std::string& plan : plans_for(problem.call())) {
        runs.push_back(run_attention_case(problem.call(), plan));
        expect_same_run(runs.back(), runs.front(), isa + ", plan " + plan);
      }
    }
    num_runs += runs.size();
  }
  EXPECT_GT(num_runs, 5u);  // one query has one plan: with one instruction set nothing to compare
}

// A query keeps its index if those after it are left out; so do batch items.
TEST_P(AttentionDropoutBits, TheFirstQueriesAndBatchItemsAlone) {
  AttentionCase spec = usual(GetParam());
  spec.masks = {};
  spec.weights = WeightsMode::kAverage;
  const AttentionProblem problem(spec);
  const AttentionRun all = run_attention_case(problem.call());
  for (int64_t rows : {1, 16, 31, 48, 64}) {
    AttentionCall call = problem.call();
    call.query = call.query.narrow(0, 0, 1).narrow(2, 0, rows);
    call.key = call.key.narrow(0, 0, 1);
    call.value = call.value.narrow(0, 0, 1);
    const AttentionRun part = run_attention_case(call);
    const std::string what = std::to_string(rows) + " rows";
    expect_same_bits(part.out.view(), all.out.view().narrow(0, 0, 1).narrow(2, 0, rows), what);
    expect_same_bits(part.weights.view(), all.weights.view().narrow(0, 0, 1).narrow(1, 0, rows),
                     what);
  }
}

// The appended columns keep their draws, too.
TEST_P(AttentionDropoutBits, TrailingPaddingOrNone) {
  for (int64_t padding : {1, 5, 8, 1100}) {
    AttentionCase spec = usual(GetParam());
    spec.kv_len += padding;
    spec.masks = {{.dims = "b11s"}};
    spec.weights = WeightsMode::kPerHead;
    const AttentionProblem problem(spec);
    const int64_t kv_len = spec.kv_len - padding;
    const TensorView mask = problem.mask_tensors[0].view();
    for_each_index(mask.shape(), [&](const Index& at) {
      mask.data_as<bool>()[offset_of(mask, at)] = at[3] >= kv_len;
    });
    AttentionCall bare = problem.call();
    bare.key = bare.key.narrow(2, 0, kv_len);
    bare.value = bare.value.narrow(2, 0, kv_len);
    bare.masks = {};
    const AttentionRun run = run_attention_case(problem.call()),
                       expected = run_attention_case(bare);
    const std::string what = std::to_string(padding) + " keys of padding";
    expect_same_bits(run.out.view(), expected.out.view(), what);
    expect_same_bits(run.weights.view().narrow(3, 0, kv_len),
                     expected.weights.view().narrow(3, 0, kv_len), what);
    expect_same_bits(run.weights.view().narrow(3, spec.kv_len, 2),
                     expected.weights.view().narrow(3, kv_len, 2), what);
  }
}

TEST_P(AttentionDropoutBits, WithWeightsOrWithout) {
  const AttentionProblem problem(usual(GetParam()));
  const AttentionRun none = run_attention_case(problem.call());
  for (WeightsMode weights : {WeightsMode::kAverage, WeightsMode::kPerHead}) {
    AttentionCall call = problem.call();
    call.weights_mode = weights;
    expect_same_bits(run_attention_case(call).out.view(), none.out.view(), "out");
  }
}

}  // namespace
}  // namespace polyhead::oracle
