// The promise of one answer: a row's bits depend on nothing but its own query, keys, values and
// masks.
#include <algorithm>
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

constexpr auto kCausal = Mask::Kind::kCausal;
constexpr auto kAdditive = Mask::Kind::kAdditive;
constexpr WeightsMode kWeightsModes[] = {WeightsMode::kNone, WeightsMode::kAverage,
                                         WeightsMode::kPerHead};

class AttentionBits : public ::testing::TestWithParam<DType> {
 protected:
  // Several tiles of queries, key blocks and heads; every kind of granule.
  AttentionCase usual() const {
    return {.batch = 2,
            .heads = 4,
            .kv_heads = 2,
            .q_len = 101,
            .kv_len = 141,
            .head_dim = 20,
            .v_head_dim = 24,
            .dtype = GetParam(),
            .regime = Regime::kPeaked,
            .masks = {{.dims = "bhls"}, {.kind = kCausal, .align = CausalAlign::kBottomRight}}};
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, AttentionBits,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(AttentionBits, AnyNumberOfThreads) {
  for (WeightsMode weights : kWeightsModes) {
    AttentionCase spec = usual();
    spec.weights = weights;
    const AttentionProblem problem(spec);
    for_each_isa([&](const std::string& isa) {
      const Threads one(1);
      const AttentionRun alone = run_attention_case(problem.call());
      for (int n : {2, 3, 7}) {
        const Threads several(n);
        for (int repeat = 0; repeat < 3; ++repeat) {
          expect_same_run(run_attention_case(problem.call()), alone,
                          isa + ", threads " + std::to_string(n));
        }
      }
    });
  }
}

TEST_P(AttentionBits, AloneOrInABatch) {
  AttentionCase spec = usual();
  spec.batch = 5;
  spec.weights = WeightsMode::kAverage;
  spec.masks = {{.dims = "b11s", .pattern = MaskPattern::kPadding}, {.kind = kAdditive}};
  const AttentionProblem problem(spec);
  for_each_isa([&](const std::string& isa) {
    const AttentionRun all = run_attention_case(problem.call());
    for (int64_t b = 0; b < spec.batch; ++b) {
      AttentionCall call = problem.call();
      call.query = call.query.narrow(0, b, 1);
      call.key = call.key.narrow(0, b, 1);
      call.value = call.value.narrow(0, b, 1);
      const std::vector<Mask> masks = narrowed(problem.masks, 0, b, 1);
      call.masks = masks;
      expect_same_part(run_attention_case(call), all, 0, b,
                       isa + ", batch item " + std::to_string(b));
    }
  });
}

TEST_P(AttentionBits, OneQueryOrAChunkOrAll) {
  AttentionCase spec = usual();
  spec.weights = WeightsMode::kPerHead;
  spec.masks = {{.dims = "hls"}, {.kind = kAdditive, .dims = "ls", .density = 0.1}};
  for (Regime regime : {Regime::kPeaked, Regime::kAscending}) {
    spec.regime = regime;
    const AttentionProblem problem(spec);
    for_each_isa([&](const std::string& isa) {
      const AttentionRun all = run_attention_case(problem.call());
      for (int64_t chunk : {1, 5, 16, 31, 48, 64}) {
        for (int64_t row = 0; row < spec.q_len; row += chunk) {
          const int64_t rows = std::min(chunk, spec.q_len - row);
          AttentionCall call = problem.call();
          call.query = call.query.narrow(2, row, rows);
          const std::vector<Mask> masks = narrowed(problem.masks, 2, row, rows);
          call.masks = masks;
          expect_same_part(run_attention_case(call), all, 2, row,
                           isa + ", rows from " + std::to_string(row));
        }
      }
    });
  }
}

// The last rows by themselves, aligned bottom right, are what a KV cache computes.
TEST_P(AttentionBits, CausalRowsOfAKvCache) {
  AttentionCase spec = usual();
  spec.kv_len = spec.q_len;
  spec.masks = {{.kind = kCausal}};
  const AttentionProblem problem(spec);
  const std::vector<Mask> bottom_right = {Mask::causal(CausalAlign::kBottomRight)};
  for_each_isa([&](const std::string& isa) {
    const AttentionRun all = run_attention_case(problem.call());
    for (int64_t rows : {1, 2, 40}) {
      for (int64_t end : {int64_t{50}, spec.q_len}) {
        AttentionCall call = problem.call();
        call.query = call.query.narrow(2, end - rows, rows);
        call.key = call.key.narrow(2, 0, end);
        call.value = call.value.narrow(2, 0, end);
        call.masks = bottom_right;
        expect_same_bits(run_attention_case(call).out.view(),
                         all.out.view().narrow(2, end - rows, rows), isa);
      }
    }
  });
}

TEST_P(AttentionBits, TrailingPaddingOrNone) {
  for (int64_t padding : {1, 5, 8, 70, 1100}) {
    for (int64_t kv_len : {1, 7, 8, 64, 77, 1020, 1024}) {
      AttentionCase spec = {.heads = 1,
                            .kv_heads = 1,
                            .q_len = 18,
                            .kv_len = kv_len + padding,
                            .dtype = GetParam(),
                            .regime = Regime::kPeaked,
                            .masks = {{.dims = "b11s"}},
                            .weights = WeightsMode::kPerHead};
      spec.extra = padding == 5 ? 1 : 0;
      const AttentionProblem problem(spec);
      const TensorView mask = problem.mask_tensors[0].view();
      for (int64_t j = 0; j < spec.kv_len; ++j) mask.data_as<bool>()[j] = j >= kv_len;
      AttentionCall unpadded = problem.call();
      unpadded.key = unpadded.key.narrow(2, 0, kv_len);
      unpadded.value = unpadded.value.narrow(2, 0, kv_len);
      unpadded.masks = {};
      for_each_isa([&](const std::string& isa) {
        const AttentionRun padded = run_attention_case(problem.call());
        const AttentionRun bare = run_attention_case(unpadded);
        const std::string what =
            isa + ", " + std::to_string(kv_len) + " + " + std::to_string(padding);
        expect_same_bits(padded.out.view(), bare.out.view(), what);
        expect_same_bits(padded.lse.view(), bare.lse.view(), what);
        expect_same_bits(padded.weights.view().narrow(3, 0, kv_len),
                         bare.weights.view().narrow(3, 0, kv_len), what);
        expect_same_bits(padded.weights.view().narrow(3, spec.kv_len, spec.extra),
                         bare.weights.view().narrow(3, kv_len, spec.extra), what);
      });
    }
  }
}

TEST_P(AttentionBits, WithWeightsOrWithout) {
  for (int64_t kv_len : {141, 1100}) {
    AttentionCase spec = usual();
    spec.kv_len = kv_len;
    spec.q_len = kv_len == 141 ? 101 : 7;
    const AttentionProblem problem(spec);
    for_each_isa([&](const std::string& isa) {
      const AttentionRun none = run_attention_case(problem.call());
      for (WeightsMode weights : {WeightsMode::kAverage, WeightsMode::kPerHead}) {
        AttentionCall call = problem.call();
        call.weights_mode = weights;
        const AttentionRun run = run_attention_case(call);
        expect_same_bits(run.out.view(), none.out.view(), isa);
        expect_same_bits(run.lse.view(), none.lse.view(), isa);
      }
    });
  }
}

// The weights of the heads, summed in their order and divided, each step rounded to the dtype.
Tensor mean_over_heads(const ConstTensorView& weights) {
  const int64_t heads = weights.size(1);
  Tensor mean(weights.dtype(), {weights.size(0), weights.size(2), weights.size(3)});
  const auto rounded = [&](double x) {
    return weights.dtype() == DType::kFloat32 ? static_cast<double>(static_cast<float>(x)) : x;
  };
  for_each_index(mean.shape(), [&](const Index& at) {
    double sum = read(weights, {at[0], 0, at[1], at[2]});
    for (int64_t h = 1; h < heads; ++h) {
      sum = rounded(sum + read(weights, {at[0], h, at[1], at[2]}));
    }
    write(mean.view(), at, rounded(sum / static_cast<double>(heads)));
  });
  return mean;
}

// Enough queries that a task has several tiles, with a short one at the end of the last task.
TEST_P(AttentionBits, AveragedWeightsAreTheMeanInTheOrderOfTheHeads) {
  const Threads one(1);
  for (int64_t heads : {1, 2, 5}) {
    AttentionCase spec = {.heads = heads,
                          .kv_heads = 1,
                          .q_len = 1700,
                          .kv_len = 29,
                          .head_dim = 8,
                          .dtype = GetParam(),
                          .regime = Regime::kPeaked,
                          .masks = {{.dims = "hls"}, {.kind = kCausal}}};
    spec.extra = 1;
    spec.weights = WeightsMode::kPerHead;
    const AttentionProblem problem(spec);
    AttentionCall averaged = problem.call();
    averaged.weights_mode = WeightsMode::kAverage;
    for_each_isa([&](const std::string& isa) {
      const AttentionRun each = run_attention_case(problem.call());
      const AttentionRun mean = run_attention_case(averaged);
      const std::string what = isa + ", heads " + std::to_string(heads);
      expect_same_bits(mean.weights.view(), mean_over_heads(each.weights.view()).view(), what);
      expect_same_bits(mean.out.view(), each.out.view(), what);
    });
  }
}

TEST_P(AttentionBits, EveryStorageOfInputsMasksAndOutputs) {
  AttentionCase spec = usual();
  spec.weights = WeightsMode::kPerHead;
  const AttentionProblem problem(spec);
  for_each_isa([&](const std::string& isa) {
    const AttentionRun contiguous = run_attention_case(problem.call());
    for (Storage storage : kStorages) {
      AttentionCase moved = spec;
      moved.storage = storage;  // the same numbers, drawn in the same order
      const AttentionProblem elsewhere(moved);
      expect_same_run(run_attention_case(elsewhere.call(), "", storage), contiguous,
                      isa + ", storage " + std::to_string(static_cast<int>(storage)));
    }
  });
}

// The same mask said in three ways.
TEST_P(AttentionBits, CausalAsDescriptorBooleanOrAdditive) {
  AttentionCase spec = usual();
  spec.masks = {{.dims = "ls"}, {.kind = kAdditive, .dims = "ls", .dtype = GetParam()}};
  const AttentionProblem problem(spec);
  fill(problem.mask_tensors[1].view(), 0);
  const TensorView boolean = problem.mask_tensors[0].view();
  for_each_index(boolean.shape(), [&](const Index& at) {
    const bool hidden = at[1] > at[0];
    boolean.data_as<bool>()[offset_of(boolean, at)] = hidden;
    if (hidden) write(problem.mask_tensors[1].view(), at, -std::numeric_limits<double>::infinity());
  });
  const std::vector<Mask> descriptor = {Mask::causal()};
  for_each_isa([&](const std::string& isa) {
    AttentionCall call = problem.call();
    call.masks = descriptor;
    const AttentionRun causal = run_attention_case(call);
    for (const Mask& mask : problem.masks) {
      call.masks = std::span(&mask, 1);
      expect_same_run(run_attention_case(call), causal, isa);
    }
  });
}

// Masks of each head, or for all heads, which their tiles then keep.
std::vector<AttentionCase> with_masks_kept_and_not(const AttentionCase& usual) {
  AttentionCase shared = usual, several = usual;
  shared.masks = {{.dims = "ls"}, {.kind = kCausal}};
  several.q_len = 800;
  several.heads = 6;
  several.masks = {{.dims = "b1ls", .pattern = MaskPattern::kPadding},
                   {.kind = kAdditive, .dims = "ls"},
                   {.dims = "b11s"}};
  return {usual, shared, several};
}

TEST_P(AttentionBits, EveryForcedPlan) {
  for (WeightsMode weights : kWeightsModes) {
    for (AttentionCase spec : with_masks_kept_and_not(usual())) {
      spec.weights = weights;
      const AttentionProblem problem(spec);
      const AttentionCall call = problem.call();
      for_each_isa([&](const std::string& isa) {
        const AttentionRun chosen = run_attention_case(call);
        for (const std::string& plan : plans_for(call)) {
          expect_same_run(run_attention_case(call, plan), chosen, isa + ", plan " + plan);
        }
        const Threads seven(7);
        expect_same_run(run_attention_case(call), chosen, isa + ", seven threads");
      });
    }
  }
}

}  // namespace
}  // namespace polyhead::oracle
