// What changes scores besides tensors: ALiBi, softcap, sinks; and segments, which hide pairs.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

constexpr DType kDTypes[] = {DType::kFloat32, DType::kFloat64};
constexpr WeightsMode kWeightsModes[] = {WeightsMode::kNone, WeightsMode::kAverage,
                                         WeightsMode::kPerHead};
constexpr auto kAlibi = Mask::Kind::kAlibi;
constexpr auto kSegments = Mask::Kind::kSegments;
constexpr auto kCausal = Mask::Kind::kCausal;

TEST(AttentionModifiers, Alibi) {
  for (DType dtype : kDTypes) {
    for (const char* dims : {"h", "bh"}) {
      for (const QueryOffset& offset : {QueryOffset(CausalAlign::kTopLeft),
                                        QueryOffset(CausalAlign::kBottomRight), QueryOffset(30)}) {
        for (int64_t q_len : {1, 3, 60}) {
          const MaskSpec alibi = {
              .kind = kAlibi, .dims = dims, .align = offset, .dtype = DType::kFloat64};
          check_case({.batch = 2,
                      .heads = 4,
                      .q_len = q_len,
                      .kv_len = 70,
                      .dtype = dtype,
                      .masks = {alibi, {.kind = kCausal, .align = offset}},
                      .weights = WeightsMode::kPerHead},
                     "modifiers");
        }
      }
    }
  }
}

// A row that stands so far from its keys that float32 rounds the distance.
TEST(AttentionModifiers, AlibiFarAway) {
  for (DType dtype : kDTypes) {
    for (int64_t offset : {1 << 22, (1 << 23) - 40, (1 << 23) + 7, (1 << 26) + 3, -(1 << 25)}) {
      for (int64_t q_len : {1, 50}) {
        AttentionCase spec = {.q_len = q_len, .kv_len = 90, .dtype = dtype};
        spec.masks = {{.kind = kAlibi, .align = offset}};
        AttentionProblem problem(spec);
        fill(problem.mask_tensors[0].view(), 0x1p-20);
        const AttentionTruth truth = truth_of(problem.call());
        for_each_kernel(problem.call(), [&](const std::string& plan, const std::string& what) {
          expect_truth(run_attention_case(problem.call(), plan), truth, "modifiers", what);
        });
      }
    }
  }
}

TEST(AttentionModifiers, Softcap) {
  for (DType dtype : kDTypes) {
    for (Regime regime : kRegimes) {
      for (double softcap : {0.5, 5.0, 50.0, 1e6}) {
        for (int64_t q_len : {1, 3, 50}) {
          check_case({.q_len = q_len,
                      .kv_len = 75,
                      .extra = 1,
                      .dtype = dtype,
                      .regime = regime,
                      .masks = {{.dims = "ls"}, {.kind = Mask::Kind::kAdditive, .dims = "hls"}},
                      .weights = WeightsMode::kPerHead,
                      .softcap = softcap},
                     "modifiers");
        }
      }
    }
  }
}

TEST(AttentionModifiers, Sinks) {
  for (DType dtype : kDTypes) {
    for (WeightsMode weights : kWeightsModes) {
      for (int64_t kv_len : {0, 1, 40, 1030}) {
        for (int64_t q_len : {1, 3, 50}) {
          check_case({.heads = 4,
                      .q_len = q_len,
                      .kv_len = kv_len,
                      .extra = kv_len % 3,
                      .dtype = dtype,
                      .regime = Regime::kPeaked,
                      .masks = {{.pattern = MaskPattern::kEmptyRows}},
                      .empty_rows = EmptyRow::kNan,
                      .weights = weights,
                      .dropout_p = kv_len == 40 ? 0.2 : 0,
                      .sinks = true},
                     "modifiers");
        }
      }
    }
  }
}

TEST(AttentionModifiers, Segments) {
  constexpr auto kRuns = MaskPattern::kPadding;  // of 13, as documents are
  for (const MaskSpec& segments :
       {MaskSpec{.kind = kSegments, .dims = "s"}, MaskSpec{.kind = kSegments, .dims = "bs"},
        MaskSpec{.kind = kSegments, .dims = "s", .pattern = kRuns, .dtype = DType::kInt32},
        MaskSpec{.kind = kSegments, .dims = "bs", .pattern = kRuns, .dtype = DType::kInt32}}) {
    for (DType dtype : kDTypes) {
      for (int64_t q_len : {1, 4, 70}) {
        for (Storage storage : {Storage::kContiguous, Storage::kColumns}) {
          check_case({.batch = 2,
                      .heads = 4,
                      .q_len = q_len,
                      .kv_len = 75,
                      .dtype = dtype,
                      .masks = {segments, {.kind = kCausal, .align = CausalAlign::kBottomRight}},
                      .weights = WeightsMode::kAverage,
                      .storage = storage},
                     "modifiers");
        }
      }
    }
  }
}

class AttentionModifiersBits : public ::testing::TestWithParam<DType> {
 protected:
  AttentionCase usual() const {
    return {.heads = 4,
            .kv_heads = 2,
            .q_len = 101,
            .kv_len = 141,
            .dtype = GetParam(),
            .regime = Regime::kPeaked,
            .weights = WeightsMode::kPerHead};
  }
  static AttentionRun run_with(const AttentionProblem& problem, const std::vector<Mask>& masks) {
    AttentionCall call = problem.call();
    call.masks = masks;
    return run_attention_case(call);
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, AttentionModifiersBits,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(AttentionModifiersBits, AlibiAsAnAdditiveMaskSaysIt) {
  AttentionCase spec = usual();
  spec.masks = {{.kind = kAlibi, .align = 20},
                {.kind = Mask::Kind::kAdditive, .dims = "hls", .dtype = GetParam()}};
  const AttentionProblem problem(spec);
  const TensorView said = problem.mask_tensors[1].view();
  for_each_index(said.shape(), [&](const Index& at) {
    const double slope = read(problem.mask_tensors[0].view(), {at[0]});
    const double term = -slope * std::abs(static_cast<double>(at[1] + 20 - at[2]));
    write(said, at, term);  // rounded to the dtype, as the product is
  });
  for_each_isa([&](const std::string& isa) {
    expect_same_run(run_with(problem, {problem.masks[0]}), run_with(problem, {problem.masks[1]}),
                    isa);
  });
}

TEST_P(AttentionModifiersBits, SegmentsAsABooleanMaskSaysThem) {
  AttentionCase spec = usual();
  spec.masks = {{.kind = kSegments, .dtype = DType::kInt32}, {.dims = "ls"}};
  const AttentionProblem problem(spec);
  const TensorView said = problem.mask_tensors[2].view();
  for_each_index(said.shape(), [&](const Index& at) {
    said.data_as<bool>()[offset_of(said, at)] = integer_at(problem.mask_tensors[0].view(), at[0]) !=
                                                integer_at(problem.mask_tensors[1].view(), at[1]);
  });
  for_each_isa([&](const std::string& isa) {
    expect_same_run(run_with(problem, {problem.masks[0]}), run_with(problem, {problem.masks[1]}),
                    isa);
  });
}

// A sink is the column of one key with the same score and the value 0; but weights have none of it.
TEST_P(AttentionModifiersBits, SinksAsAnAppendedColumn) {
  AttentionCase spec = usual();
  spec.heads = spec.kv_heads = 2;
  spec.sinks = true;
  spec.extra = 1;
  const AttentionProblem problem(spec);
  fill(problem.query.view().narrow(3, 0, 1), 1);
  fill(problem.extra_key.view(), 0);
  fill(problem.extra_value.view(), 0);
  for (int64_t h = 0; h < 2; ++h) {
    write(problem.extra_key.view(), {h, 0, 0}, read(problem.sinks.view(), {h}));
  }
  AttentionCall column = problem.call(), sink = problem.call();
  column.scale = sink.scale = 1;
  column.sinks = {};
  sink.extra_key = sink.extra_value = {};
  for_each_isa([&](const std::string& isa) {
    const AttentionRun want = run_attention_case(column), got = run_attention_case(sink);
    expect_same_bits(got.out.view(), want.out.view(), isa);
    expect_same_bits(got.lse.view(), want.lse.view(), isa);
    expect_same_bits(got.weights.view(), want.weights.view().narrow(3, 0, spec.kv_len), isa);
  });
}

// -inf is no sink, and a softcap far above all scores is almost none.
TEST_P(AttentionModifiersBits, ThoseThatDoNothing) {
  AttentionCase spec = usual();
  spec.sinks = true;
  const AttentionProblem problem(spec);
  fill(problem.sinks.view(), -std::numeric_limits<double>::infinity());
  AttentionCall without = problem.call();
  without.sinks = {};
  for_each_isa([&](const std::string& isa) {
    expect_same_run(run_attention_case(problem.call()), run_attention_case(without), isa);
  });
}

TEST_P(AttentionModifiersBits, AnyPlanThreadsAndChunks) {
  AttentionCase spec = usual();
  spec.masks = {{.kind = kAlibi}, {.kind = kSegments, .pattern = MaskPattern::kPadding}};
  spec.softcap = 3;
  spec.sinks = true;
  const AttentionProblem problem(spec);
  for_each_kernel(problem.call(), [&](const std::string& plan, const std::string& what) {
    const AttentionRun all = run_attention_case(problem.call(), plan);
    const Threads seven(7);
    expect_same_run(run_attention_case(problem.call(), plan), all, what);
    for (int64_t row : {0, 50, 99}) {
      AttentionCall call = problem.call();
      call.query = call.query.narrow(2, row, 2);
      std::vector<Mask> masks = narrowed(problem.masks, 2, row, 2);
      masks[0] = Mask::alibi(problem.mask_tensors[0].view(), row);
      call.masks = masks;
      expect_same_bits(run_attention_case(call, plan).out.view(), all.out.view().narrow(2, row, 2),
                       what);
    }
  });
}

}  // namespace
}  // namespace polyhead::oracle
