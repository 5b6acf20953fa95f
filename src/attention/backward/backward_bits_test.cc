// The gradients' promise of one answer: their bits depend on the numbers of the call alone, not on
// who computes them, what else is asked for, or where in a batch they stand.
#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "testing/backward_part.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

constexpr auto kCausal = Mask::Kind::kCausal;
constexpr auto kAdditive = Mask::Kind::kAdditive;
constexpr WeightsMode kWeightsModes[] = {WeightsMode::kNone, WeightsMode::kAverage,
                                         WeightsMode::kPerHead};

class BackwardBits : public ::testing::TestWithParam<DType> {
 protected:
  // Several tiles of queries, chunks of keys and heads; every kind of granule.
  AttentionCase usual() const {
    return {.batch = 2,
            .heads = 4,
            .kv_heads = 2,
            .q_len = 101,
            .kv_len = 541,
            .head_dim = 20,
            .v_head_dim = 24,
            .extra = 1,
            .dtype = GetParam(),
            .regime = Regime::kPeaked,
            .masks = {{.dims = "bhls"},
                      {.kind = kAdditive, .dims = "hls", .density = 0.1},
                      {.kind = kCausal, .align = CausalAlign::kBottomRight}}};
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, BackwardBits, ::testing::Values(DType::kFloat32, DType::kFloat64));

TEST_P(BackwardBits, AnyNumberOfThreadsAndEveryPlan) {
  for (WeightsMode weights : kWeightsModes) {
    AttentionCase spec = usual();
    spec.weights = weights;
    const BackwardProblem problem(spec);
    for_each_isa([&](const std::string& isa) {
      const Threads one(1);
      const BackwardRun alone = run_backward_case(problem);
      const std::vector<std::string> plans = backward_plans_for(problem);
      ASSERT_EQ(plans.size(), 3u);
      for (int n : {1, 2, 3, 7}) {
        const Threads several(n);
        const std::string what = isa + ", threads " + std::to_string(n);
        expect_same_gradients(run_backward_case(problem), alone, what);
        for (const std::string& plan : plans) {
          expect_same_gradients(run_backward_case(problem, plan), alone, what + ", " + plan);
        }
      }
    });
  }
}

TEST_P(BackwardBits, RunToRun) {
  const BackwardProblem problem(usual());
  const Threads seven(7);
  const BackwardRun first = run_backward_case(problem);
  for (int repeat = 0; repeat < 10; ++repeat) {
    expect_same_gradients(run_backward_case(problem), first, "again");
  }
}

TEST_P(BackwardBits, WhateverElseIsAskedFor) {
  const BackwardProblem problem(usual());
  for_each_isa([&](const std::string& isa) {
    const BackwardRun all = run_backward_case(problem);
    for (int bits = 0; bits < 32; ++bits) {
      const Wanted wanted{.query = (bits & 1) != 0,
                          .key = (bits & 2) != 0,
                          .value = (bits & 4) != 0,
                          .extra = (bits & 8) != 0,
                          .masks = (bits & 16) != 0};
      const BackwardRun some = run_backward_case(problem, "", wanted);
      expect_same_gradients(some, all, isa + ", wanted " + std::to_string(bits));
    }
  });
}

TEST_P(BackwardBits, AloneOrInABatch) {
  AttentionCase spec = usual();
  spec.batch = 3;
  spec.extra = 0;  // their gradients are sums over the batch
  spec.weights = WeightsMode::kAverage;
  spec.masks = {{.dims = "b11s", .pattern = MaskPattern::kPadding},
                {.kind = kAdditive, .dims = "bhls"}};
  const BackwardProblem problem(spec);
  for_each_isa([&](const std::string& isa) {
    const BackwardRun all = run_backward_case(problem);
    for (int64_t b = 0; b < spec.batch; ++b) {
      BackwardPart part(problem);
      part.narrow_queries(0, b, 1);
      part.narrow_keys(0, b, 1);
      part.inputs.d_weights = part.inputs.d_weights.narrow(0, b, 1);
      const BackwardRun alone = part.run();
      const std::string what = isa + ", batch item " + std::to_string(b);
      expect_same_bits(alone.d_query.view(), all.d_query.view().narrow(0, b, 1), what);
      expect_same_bits(alone.d_key.view(), all.d_key.view().narrow(0, b, 1), what);
      expect_same_bits(alone.d_value.view(), all.d_value.view().narrow(0, b, 1), what);
      expect_same_bits(alone.d_masks[1].view(), all.d_masks[1].view().narrow(0, b, 1), what);
    }
  });
}

// The heads of a group in one call or in calls of their own. Keys that two query heads share have
// the sum over both, so a call has a whole group.
TEST_P(BackwardBits, AllHeadsOrAGroupAtATime) {
  AttentionCase spec = usual();
  spec.extra = 0;
  spec.weights = WeightsMode::kPerHead;
  const BackwardProblem problem(spec);
  for_each_isa([&](const std::string& isa) {
    const BackwardRun all = run_backward_case(problem);
    for (int64_t g = 0; g < spec.kv_heads; ++g) {
      BackwardPart part(problem);
      part.narrow_queries(1, 2 * g, 2);
      part.narrow_keys(1, g, 1);
      part.inputs.d_weights = part.inputs.d_weights.narrow(1, 2 * g, 2);
      const BackwardRun group = part.run();
      const std::string what = isa + ", group " + std::to_string(g);
      expect_same_bits(group.d_query.view(), all.d_query.view().narrow(1, 2 * g, 2), what);
      expect_same_bits(group.d_key.view(), all.d_key.view().narrow(1, g, 1), what);
      expect_same_bits(group.d_value.view(), all.d_value.view().narrow(1, g, 1), what);
      expect_same_bits(group.d_masks[1].view(), all.d_masks[1].view().narrow(0, 2 * g, 2), what);
    }
  });
}

// d_query of a row feels its own row alone.
TEST_P(BackwardBits, QueriesInOneCallOrInChunks) {
  AttentionCase spec = usual();
  spec.masks.pop_back();  // a causal mask would count rows anew in each chunk
  const BackwardProblem problem(spec);
  for_each_isa([&](const std::string& isa) {
    const BackwardRun all = run_backward_case(problem);
    for (int64_t chunk : {1, 5, 16, 48, 64}) {
      for (int64_t row = 0; row < spec.q_len; row += 3 * chunk) {
        const int64_t rows = std::min(chunk, spec.q_len - row);
        BackwardPart part(problem);
        part.narrow_queries(2, row, rows);
        const std::string what = isa + ", rows from " + std::to_string(row);
        ASSERT_TRUE(expect_same_bits(part.run().d_query.view(),
                                     all.d_query.view().narrow(2, row, rows), what));
      }
    }
  });
}

// Keys that a mask hides at the end, and query rows at the end that the loss does not see.
TEST_P(BackwardBits, TrailingPaddingOrNone) {
  for (int64_t padding : {1, 8, 70, 530}) {
    for (int64_t kv_len : {7, 8, 77, 512, 1024}) {
      AttentionCase spec = usual();
      spec.batch = 1;
      spec.q_len = 30;
      spec.kv_len = kv_len + padding;
      spec.masks = {{.dims = "b11s"}};
      BackwardProblem problem(spec);
      const TensorView mask = problem.problem.mask_tensors[0].view();
      for (int64_t j = 0; j < spec.kv_len; ++j) mask.data_as<bool>()[j] = j >= kv_len;
      fill(problem.d_out.view().narrow(2, 20, 10), 0);
      for_each_isa([&](const std::string& isa) {
        problem.forward = run_attention_case(problem.problem.call());
        BackwardPart bare(problem);
        bare.narrow_queries(2, 0, 20);
        bare.narrow_keys(2, 0, kv_len);
        bare.masks = {};
        const BackwardRun padded = run_backward_case(problem), trimmed = bare.run();
        const std::string what =
            isa + ", " + std::to_string(kv_len) + " + " + std::to_string(padding);
        expect_same_bits(padded.d_query.view().narrow(2, 0, 20), trimmed.d_query.view(), what);
        expect_same_bits(padded.d_key.view().narrow(2, 0, kv_len), trimmed.d_key.view(), what);
        expect_same_bits(padded.d_value.view().narrow(2, 0, kv_len), trimmed.d_value.view(), what);
        expect_same_bits(padded.d_extra_key.view(), trimmed.d_extra_key.view(), what);
        expect_same_bits(padded.d_extra_value.view(), trimmed.d_extra_value.view(), what);
      });
    }
  }
}

TEST_P(BackwardBits, EveryStorageOfInputsMasksAndGradients) {
  AttentionCase spec = usual();
  spec.weights = WeightsMode::kPerHead;
  for_each_isa([&](const std::string& isa) {
    const BackwardProblem problem(spec);
    const BackwardRun contiguous = run_backward_case(problem);
    for (Storage storage : kStorages) {
      AttentionCase moved = spec;
      moved.storage = storage;  // the same numbers, drawn in the same order
      const BackwardProblem elsewhere(moved);
      const BackwardRun run = run_backward_case(elsewhere);
      const std::string what = isa + ", storage " + std::to_string(static_cast<int>(storage));
      expect_same_gradients(run, contiguous, what);
      EXPECT_TRUE(run.intact()) << what;
    }
  });
}

// A full causal mask said in three ways.
TEST_P(BackwardBits, CausalAsDescriptorBooleanOrAdditive) {
  AttentionCase spec = usual();
  spec.kv_len = spec.q_len;
  spec.masks = {{.dims = "ls"}, {.kind = kAdditive, .dims = "ls", .dtype = GetParam()}};
  BackwardProblem problem(spec);
  fill(problem.problem.mask_tensors[1].view(), 0);
  const TensorView boolean = problem.problem.mask_tensors[0].view();
  for_each_index(boolean.shape(), [&](const Index& at) {
    const bool hidden = at[1] > at[0];
    boolean.data_as<bool>()[offset_of(boolean, at)] = hidden;
    if (hidden)
      write(problem.problem.mask_tensors[1].view(), at, -std::numeric_limits<double>::infinity());
  });
  const std::vector<Mask> descriptor = {Mask::causal()};
  for_each_isa([&](const std::string& isa) {
    AttentionCall call = problem.problem.call();
    call.masks = descriptor;
    problem.forward = run_attention_case(call);
    const BackwardRun causal = run_backward(call, problem.inputs(), {.masks = false});
    for (const Mask& mask : problem.problem.masks) {
      call.masks = std::span(&mask, 1);
      const BackwardRun run = run_backward(call, problem.inputs(), {.masks = false});
      expect_same_bits(run.d_query.view(), causal.d_query.view(), isa);
      expect_same_bits(run.d_key.view(), causal.d_key.view(), isa);
      expect_same_bits(run.d_value.view(), causal.d_value.view(), isa);
    }
  });
}

}  // namespace
}  // namespace polyhead::oracle
