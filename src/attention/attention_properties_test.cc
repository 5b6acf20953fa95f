// What must hold of attention whatever the numbers: isolation, permutations, bounds, linearity.
// Those that are exact compare bits.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/elements.h"

namespace polyhead::oracle {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

class AttentionProperties : public ::testing::TestWithParam<DType> {
 protected:
  AttentionCase usual() const {
    return {.batch = 2,
            .heads = 4,
            .kv_heads = 4,
            .q_len = 53,
            .kv_len = 75,
            .head_dim = 20,
            .v_head_dim = 24,
            .dtype = GetParam()};
  }
  std::string suite(const char* name) const {
    return std::string(name) + "." + dtype_name(GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(DTypes, AttentionProperties,
                         ::testing::Values(DType::kFloat32, DType::kFloat64));

// A copy of `tensor` whose index along `dim` is taken from order.
GuardedTensor permuted(const GuardedTensor& tensor, int dim, const std::vector<int64_t>& order) {
  GuardedTensor result(tensor.view().dtype(), tensor.view().shape());
  fill_with(result.view(), [&](Index at) {
    at[static_cast<size_t>(dim)] = order[static_cast<size_t>(at[static_cast<size_t>(dim)])];
    return read(tensor.view(), at);
  });
  return result;
}

std::vector<int64_t> shuffle(int64_t n, uint64_t seed) {
  std::vector<int64_t> order(static_cast<size_t>(n));
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int64_t>(i);
  Random random(seed);
  for (size_t i = order.size(); i > 1; --i) {
    std::swap(order[i - 1], order[static_cast<size_t>(random.below(static_cast<int64_t>(i)))]);
  }
  return order;
}

TEST_P(AttentionProperties, CausalRowsIgnoreTheFuture) {
  AttentionCase spec = usual();
  spec.kv_len = spec.q_len;
  spec.masks = {{.kind = Mask::Kind::kCausal}};
  for (double poison : {kNan, kInf, -kInf}) {
    for (int64_t now : {0, 3, 7, 8, 30, 47, 48, 51}) {
      const AttentionProblem clean(spec), poisoned(spec);
      const int64_t rest = spec.kv_len - now - 1;
      fill(poisoned.key.view().narrow(2, now + 1, rest), poison);
      fill(poisoned.value.view().narrow(2, now + 1, rest), poison);
      for_each_kernel(clean.call(), [&](const std::string& plan, const std::string& what) {
        const AttentionRun a = run_attention_case(clean.call(), plan);
        const AttentionRun b = run_attention_case(poisoned.call(), plan);
        expect_same_bits(a.out.view().narrow(2, 0, now + 1), b.out.view().narrow(2, 0, now + 1),
                         what + ", now " + std::to_string(now));
        expect_same_bits(a.lse.view().narrow(2, 0, now + 1), b.lse.view().narrow(2, 0, now + 1),
                         what);
      });
    }
  }
}

TEST_P(AttentionProperties, MaskedKeysAndValuesChangeNothing) {
  for (const MaskSpec& mask :
       {MaskSpec{.dims = "b11s"}, MaskSpec{.dims = "b11s", .pattern = MaskPattern::kPadding},
        MaskSpec{.kind = Mask::Kind::kAdditive, .dims = "b11s", .density = 0.5}}) {
    AttentionCase spec = usual();
    spec.masks = {mask};
    spec.weights = WeightsMode::kPerHead;
    const AttentionProblem clean(spec);
    for (double poison : {kNan, kInf, -kInf}) {
      const AttentionProblem poisoned(spec);
      for_each_index(poisoned.key.view().shape(), [&](const Index& at) {
        const double bias = attention_bias_reference(clean.call(), at[0], at[1], 0, at[2]);
        if (bias == -kInf) write(poisoned.key.view(), at, poison);
      });
      for_each_index(poisoned.value.view().shape(), [&](const Index& at) {
        const double bias = attention_bias_reference(clean.call(), at[0], at[1], 0, at[2]);
        if (bias == -kInf) write(poisoned.value.view(), at, poison);
      });
      for_each_kernel(clean.call(), [&](const std::string& plan, const std::string& what) {
        expect_same_run(run_attention_case(poisoned.call(), plan),
                        run_attention_case(clean.call(), plan), what);
      });
    }
  }
}

TEST_P(AttentionProperties, PermutingQueriesHeadsOrBatchPermutesTheOutput) {
  const AttentionCase spec = usual();
  for (int dim : {0, 1, 2}) {
    const AttentionProblem problem(spec);
    const std::vector<int64_t> order = shuffle(problem.query.view().size(dim), 5);
    const GuardedTensor query = permuted(problem.query, dim, order);
    GuardedTensor key, value;
    AttentionCall call = problem.call();
    call.query = query.view();
    if (dim < 2) {
      key = permuted(problem.key, dim, order);
      value = permuted(problem.value, dim, order);
      call.key = key.view();
      call.value = value.view();
    }
    for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
      const AttentionRun plain = run_attention_case(problem.call(), plan);
      const GuardedTensor expected = permuted(plain.out, dim, order);
      expect_same_bits(run_attention_case(call, plan).out.view(), expected.view(),
                       what + ", dimension " + std::to_string(dim));
    });
  }
}

TEST_P(AttentionProperties, PermutingKeysWithTheirValuesChangesNothingBeyondBudget) {
  const AttentionProblem problem(usual());
  const std::vector<int64_t> order = shuffle(problem.spec.kv_len, 6);
  const GuardedTensor key = permuted(problem.key, 2, order);
  const GuardedTensor value = permuted(problem.value, 2, order);
  const AttentionTruth truth = truth_of(problem.call());
  AttentionCall call = problem.call();
  call.key = key.view();
  call.value = value.view();
  for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
    expect_truth(run_attention_case(call, plan), truth, "properties.permuted_keys", what);
  });
}

TEST_P(AttentionProperties, ConstantValuesComeBack) {
  for (Regime regime : {Regime::kSigma1, Regime::kPeaked, Regime::kAscending}) {
    AttentionCase spec = usual();
    spec.regime = regime;
    const AttentionProblem problem(spec);
    fill(problem.value.view(), 0.7);
    const double constant = read(problem.value.view(), {});
    const AttentionCall call = problem.call();
    AttentionTruth truth = truth_of(call);
    fill(truth.reference.out, constant);
    for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
      expect_within_budget(run_attention_case(call, plan).out.view(), truth.reference.out,
                           truth.reference.out_budget, {suite("properties.constant"), what});
    });
  }
}

TEST_P(AttentionProperties, OutputsLieBetweenTheSmallestAndTheLargestValue) {
  const AttentionProblem problem(usual());
  const AttentionCall call = problem.call();
  const AttentionReference truth = attention_forward_reference(call, {.budget = true});
  for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
    const AttentionRun run = run_attention_case(call, plan);
    for_each_index(run.out.view().shape(), [&](const Index& at) {
      double smallest = kInf, largest = -kInf;
      for (int64_t j = 0; j < call.kv_len(); ++j) {
        const double v = read(call.value, {at[0], at[1], j, at[3]});
        smallest = std::min(smallest, v);
        largest = std::max(largest, v);
      }
      const double out = read(run.out.view(), at), budget = read(truth.out_budget, at);
      ASSERT_TRUE(out >= smallest - budget && out <= largest + budget) << what;
    });
  });
}

// The same number added to all scores of a row cancels in the softmax and moves lse.
TEST_P(AttentionProperties, ShiftingTheScoresOfARow) {
  AttentionCase spec = usual();
  spec.masks = {{.kind = Mask::Kind::kAdditive, .dims = "l1", .dtype = GetParam()}};
  const AttentionProblem problem(spec);
  fill_with(problem.mask_tensors[0].view(),
            [](const Index& at) { return 4.0 * static_cast<double>(at[0] % 7) - 8; });
  AttentionCall plain = problem.call();
  plain.masks = {};
  const AttentionReference truth = attention_forward_reference(plain);
  const AttentionReference shifted = attention_forward_reference(problem.call(), {.budget = true});
  for_each_kernel(plain, [&](const std::string& plan, const std::string& what) {
    const AttentionRun run = run_attention_case(problem.call(), plan);
    expect_within_budget(run.out.view(), truth.out, shifted.out_budget,
                         {suite("properties.shift"), what});
  });
}

// Values that are small integers, so that 2 a + b is exact.
TEST_P(AttentionProperties, LinearInTheValues) {
  const AttentionProblem a(usual()), b(usual()), sum(usual());
  Random random(9);
  fill_with(a.value.view(),
            [&](const Index&) { return static_cast<double>(random.below(17) - 8); });
  fill_with(b.value.view(),
            [&](const Index&) { return static_cast<double>(random.below(17) - 8); });
  fill_with(sum.value.view(), [&](const Index& at) {
    return 2 * read(a.value.view(), at) + read(b.value.view(), at);
  });
  const AttentionReference truth_a = attention_forward_reference(a.call());
  const AttentionReference truth_b = attention_forward_reference(b.call());
  const AttentionReference budget = attention_forward_reference(sum.call(), {.budget = true});
  Tensor combined(DType::kFloat64, truth_a.out.shape());
  fill_with(combined,
            [&](const Index& at) { return 2 * read(truth_a.out, at) + read(truth_b.out, at); });
  for_each_kernel(sum.call(), [&](const std::string& plan, const std::string& what) {
    expect_within_budget(run_attention_case(sum.call(), plan).out.view(), combined,
                         budget.out_budget, {suite("properties.linear"), what});
  });
}

TEST_P(AttentionProperties, GroupedHeadsEqualRepeatedOnes) {
  for (int64_t kv_heads : {1, 2}) {
    AttentionCase spec = usual();
    spec.kv_heads = kv_heads;
    spec.extra = 1;
    const AttentionProblem grouped(spec);
    std::vector<int64_t> order;
    for (int64_t h = 0; h < spec.heads; ++h) order.push_back(h / (spec.heads / kv_heads));
    const auto repeat = [&](const GuardedTensor& tensor, int dim) {
      std::vector<int64_t> shape(tensor.view().shape().begin(), tensor.view().shape().end());
      shape[static_cast<size_t>(dim)] = spec.heads;
      GuardedTensor result(GetParam(), shape);
      for (int64_t h = 0; h < spec.heads; ++h) {
        const TensorView from = tensor.view().narrow(dim, order[static_cast<size_t>(h)], 1);
        fill_with(result.view().narrow(dim, h, 1), [&](const Index& at) { return read(from, at); });
      }
      return result;
    };
    const GuardedTensor key = repeat(grouped.key, 1), value = repeat(grouped.value, 1);
    const GuardedTensor extra_key = repeat(grouped.extra_key, 0);
    const GuardedTensor extra_value = repeat(grouped.extra_value, 0);
    AttentionCall call = grouped.call();
    call.key = key.view();
    call.value = value.view();
    call.extra_key = extra_key.view();
    call.extra_value = extra_value.view();
    for_each_kernel(call, [&](const std::string& plan, const std::string& what) {
      expect_same_run(run_attention_case(call, plan), run_attention_case(grouped.call(), plan),
                      what);
    });
  }
}

}  // namespace
}  // namespace polyhead::oracle
