// Hidden pairs and empty rows are nobody's business, be they full of NaN.
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "attention/attention_reference.h"
#include "testing/backward_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr auto kAdditive = Mask::Kind::kAdditive;

class BackwardProperties : public ::testing::TestWithParam<DType> {
 protected:
  AttentionCase usual() const {
    return {.batch = 2,
            .heads = 4,
            .kv_heads = 2,
            .q_len = 53,
            .kv_len = 75,
            .head_dim = 20,
            .v_head_dim = 24,
            .extra = 1,
            .dtype = GetParam(),
            .weights = WeightsMode::kPerHead};
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, BackwardProperties,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

bool hides(const AttentionCall& call, const Index& bhij) {
  return attention_bias_reference(call, bhij[0], bhij[1], bhij[2], bhij[3]) == -kInf;
}

// Every number of the rows [first, first + count): the inputs' and what the forward wrote.
void poison_rows(BackwardProblem& problem, int64_t first, int64_t count, double poison) {
  fill(problem.problem.query.view().narrow(2, first, count), poison);
  fill(problem.d_out.view().narrow(2, first, count), poison);
  fill(problem.forward.out.view().narrow(2, first, count), poison);
}

// Runs the backward of both, which differ in numbers that must not matter to `same`.
void expect_no_difference(
    const BackwardProblem& clean, const BackwardProblem& poisoned,
    const std::function<void(const BackwardRun& a, const BackwardRun& b, const std::string& what)>&
        same = expect_same_gradients) {
  for_each_backward(clean, [&](const std::string& plan, const std::string& what) {
    same(run_backward_case(poisoned, plan), run_backward_case(clean, plan), what);
  });
}

TEST_P(BackwardProperties, HiddenKeysAndValuesChangeNothing) {
  for (const MaskSpec& mask :
       {MaskSpec{.dims = "b11s"}, MaskSpec{.dims = "b11s", .pattern = MaskPattern::kPadding},
        MaskSpec{.kind = kAdditive, .dims = "b11s", .density = 0.5}}) {
    AttentionCase spec = usual();
    spec.masks = {mask};
    const BackwardProblem clean(spec);
    for (double poison : {kNan, kInf, -kInf}) {
      const BackwardProblem poisoned(spec);
      for_each_index(clean.problem.key.view().shape(), [&](const Index& at) {
        if (!hides(clean.problem.call(), {at[0], 0, 0, at[2]})) return;
        for (const GuardedTensor* rows : {&poisoned.problem.key, &poisoned.problem.value}) {
          fill(rows->view().narrow(0, at[0], 1).narrow(2, at[2], 1), poison);
        }
      });
      expect_no_difference(clean, poisoned);
    }
  }
}

// With top-left causality: the rows up to `now` see nothing of the keys after it.
TEST_P(BackwardProperties, RowsIgnoreTheFuture) {
  AttentionCase spec = usual();
  spec.kv_len = spec.q_len;
  spec.masks = {{.kind = Mask::Kind::kCausal}};
  const BackwardProblem clean(spec);
  for (double poison : {kNan, kInf}) {
    for (int64_t now : {0, 7, 8, 30, 47, 51}) {
      BackwardProblem poisoned(spec);
      const int64_t rest = spec.kv_len - now - 1;
      fill(poisoned.problem.key.view().narrow(2, now + 1, rest), poison);
      fill(poisoned.problem.value.view().narrow(2, now + 1, rest), poison);
      poison_rows(poisoned, now + 1, rest, poison);
      fill(poisoned.forward.lse.view().narrow(2, now + 1, rest), poison);
      expect_no_difference(clean, poisoned, [&](const auto& a, const auto& b, const auto& what) {
        expect_same_bits(a.d_query.view().narrow(2, 0, now + 1),
                         b.d_query.view().narrow(2, 0, now + 1), what);
      });
    }
  }
}

// The other way round: the keys after `now` feel nothing of the rows up to it.
TEST_P(BackwardProperties, KeysIgnoreThePast) {
  AttentionCase spec = usual();
  spec.kv_len = spec.q_len;
  spec.masks = {{.kind = Mask::Kind::kCausal}};
  const BackwardProblem clean(spec);
  for (double poison : {kNan, kInf}) {
    for (int64_t now : {0, 7, 8, 30, 47, 51}) {
      BackwardProblem poisoned(spec);
      poison_rows(poisoned, 0, now + 1, poison);
      fill(poisoned.forward.lse.view().narrow(2, 0, now + 1), kNan);
      const int64_t rest = spec.kv_len - now - 1;
      expect_no_difference(clean, poisoned, [&](const auto& a, const auto& b, const auto& what) {
        expect_same_bits(a.d_key.view().narrow(2, now + 1, rest),
                         b.d_key.view().narrow(2, now + 1, rest), what);
        expect_same_bits(a.d_value.view().narrow(2, now + 1, rest),
                         b.d_value.view().narrow(2, now + 1, rest), what);
      });
    }
  }
}

// A row of NaN reaches the keys it sees, and them alone.
TEST_P(BackwardProperties, ARowOfNanReachesTheKeysItSees) {
  AttentionCase spec = usual();
  spec.extra = 0;
  spec.masks = {{.dims = "ls", .density = 0.5}};
  const BackwardProblem clean(spec);
  for (int64_t row : {0, 20, 52}) {
    BackwardProblem poisoned(spec);
    poison_rows(poisoned, row, 1, kNan);
    fill(poisoned.forward.lse.view().narrow(2, row, 1), kNan);
    expect_no_difference(clean, poisoned, [&](const auto& a, const auto& b, const auto& what) {
      for (int64_t i = 0; i < spec.q_len; ++i) {
        if (i == row) continue;
        expect_same_bits(a.d_query.view().narrow(2, i, 1), b.d_query.view().narrow(2, i, 1), what);
      }
      for (int64_t j = 0; j < spec.kv_len; ++j) {
        if (hides(clean.problem.call(), {0, 0, row, j})) {
          expect_same_bits(a.d_key.view().narrow(2, j, 1), b.d_key.view().narrow(2, j, 1), what);
          expect_same_bits(a.d_value.view().narrow(2, j, 1), b.d_value.view().narrow(2, j, 1),
                           what);
        } else {
          EXPECT_TRUE(std::isnan(read(a.d_key.view(), {1, 1, j, 3}))) << what << ", key " << j;
          EXPECT_TRUE(std::isnan(read(a.d_value.view(), {1, 1, j, 3}))) << what << ", key " << j;
        }
      }
    });
  }
}

void expect_zero(const ConstTensorView& view, const std::string& what) {
  const Tensor copy(view);
  expect_same_bits(copy, Tensor(view.dtype(), copy.shape()), what);
}

void expect_finite(const GuardedTensor& tensor, const std::string& what) {
  if (!tensor.defined()) return;
  for_each_index(tensor.view().shape(), [&](const Index& at) {
    EXPECT_TRUE(std::isfinite(read(tensor.view(), at))) << what << index_string(at, 4);
  });
}

// Rows that see nothing: gradient 0, and no trace in any other, be they full of NaN.
TEST_P(BackwardProperties, EmptyRowsHaveGradientZero) {
  for (EmptyRow empty_rows : {EmptyRow::kZero, EmptyRow::kNan}) {
    AttentionCase spec = usual();
    spec.extra = 0;
    spec.masks = {{.pattern = MaskPattern::kEmptyRows},
                  {.kind = kAdditive, .dims = "hls", .density = 0.1}};
    spec.empty_rows = empty_rows;
    const BackwardProblem clean(spec);
    BackwardProblem poisoned(spec);
    for (int64_t i = 1; i < spec.q_len; i += 3) {
      poison_rows(poisoned, i, 1, kNan);
      fill(poisoned.d_weights.view().narrow(2, i, 1), kNan);
    }
    for_each_backward(clean, [&](const std::string& plan, const std::string& what) {
      const BackwardRun run = run_backward_case(poisoned, plan);
      expect_same_gradients(run, run_backward_case(clean, plan), what);
      for (int64_t i = 1; i < spec.q_len; i += 3) {
        expect_zero(run.d_query.view().narrow(2, i, 1), what + ", d_query");
        expect_zero(run.d_masks[1].view().narrow(1, i, 1), what + ", d_mask");
      }
      for (const GuardedTensor* gradient : {&run.d_query, &run.d_key, &run.d_value}) {
        expect_finite(*gradient, what);
      }
    });
  }
}

// All rows empty, and keys that no row sees.
TEST_P(BackwardProperties, NothingVisibleHasGradientZero) {
  for (int64_t hidden_from : {0, 30}) {
    AttentionCase spec = usual();
    spec.extra = 0;
    spec.empty_rows = EmptyRow::kNan;
    spec.masks = {{.dims = "1s"}};
    BackwardProblem problem(spec);
    const TensorView mask = problem.problem.mask_tensors[0].view();
    for (int64_t j = 0; j < spec.kv_len; ++j) mask.data_as<bool>()[j] = j >= hidden_from;
    const int64_t rest = spec.kv_len - hidden_from;
    fill(problem.problem.key.view().narrow(2, hidden_from, rest), kNan);
    for_each_isa([&](const std::string& isa) {
      problem.forward = run_attention_case(problem.problem.call());
      for (const std::string& plan : backward_plans_for(problem)) {
        const BackwardRun run = run_backward_case(problem, plan);
        const std::string what = isa + ", " + plan;
        expect_zero(run.d_key.view().narrow(2, hidden_from, rest), what);
        expect_zero(run.d_value.view().narrow(2, hidden_from, rest), what);
        if (hidden_from == 0) expect_zero(run.d_query.view(), what);
        expect_finite(run.d_query, what);
      }
    });
  }
}

TEST_P(BackwardProperties, WeightGradientsOfHiddenPairsChangeNothing) {
  for (WeightsMode weights : {WeightsMode::kPerHead, WeightsMode::kAverage}) {
    AttentionCase spec = usual();
    spec.weights = weights;
    spec.masks = {{.dims = "b1ls"}, {.kind = Mask::Kind::kCausal}};
    const BackwardProblem clean(spec);
    BackwardProblem poisoned(spec);
    const TensorView d_weights = poisoned.d_weights.view();
    for_each_index(d_weights.shape(), [&](const Index& at) {
      const int64_t row = at[static_cast<size_t>(d_weights.rank() - 2)];
      const int64_t key = at[static_cast<size_t>(d_weights.rank() - 1)];
      if (key < spec.kv_len && hides(clean.problem.call(), {at[0], 0, row, key})) {
        write(d_weights, at, kNan);
      }
    });
    expect_no_difference(clean, poisoned);
  }
}

}  // namespace
}  // namespace polyhead::oracle
