// The oracle of the backward, tested itself: by differences of the forward reference, by the
// adjoint identity against a forward-mode derivative, and by its sum rules.
#include "attention/attention_backward_reference.h"

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "attention/attention_reference.h"
#include "testing/attention_case.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/tolerance.h"

namespace polyhead::oracle {
namespace {

constexpr auto kAdditive = Mask::Kind::kAdditive;
constexpr auto kCausal = Mask::Kind::kCausal;

Tensor random_like(Shape shape, uint64_t seed) {
  Random random(seed);
  Tensor tensor(DType::kFloat64, shape);
  fill_with(tensor, [&](const Index&) { return random.normal(); });
  return tensor;
}

double dot(const ConstTensorView& a, const ConstTensorView& b) {
  double sum = 0;
  for_each_index(a.shape(), [&](const Index& at) { sum += read(a, at) * read(b, at); });
  return sum;
}

Tensor mean_over_heads(const Tensor& probs) {
  Tensor mean(DType::kFloat64, {probs.size(0), probs.size(2), probs.size(3)});
  for_each_index(probs.shape(), [&](const Index& at) {
    const Index to = {at[0], at[2], at[3]};
    write(mean, to, read(mean, to) + read(probs, at) / static_cast<double>(probs.size(1)));
  });
  return mean;
}

// A problem with random cotangents, and the loss they are the derivative of:
// <d_out, out> + <d_weights, weights>.
struct Setting {
  AttentionProblem problem;
  Tensor d_out, d_weights;

  explicit Setting(const AttentionCase& spec) : problem(spec) {
    const int64_t columns = spec.kv_len + spec.extra;
    d_out =
        random_like(std::vector<int64_t>{spec.batch, spec.heads, spec.q_len, spec.v_head_dim}, 101);
    if (spec.weights == WeightsMode::kPerHead) {
      d_weights =
          random_like(std::vector<int64_t>{spec.batch, spec.heads, spec.q_len, columns}, 102);
    } else if (spec.weights == WeightsMode::kAverage) {
      d_weights = random_like(std::vector<int64_t>{spec.batch, spec.q_len, columns}, 103);
    }
  }
  ReferenceGradients gradients() const {
    return attention_backward_reference(problem.call(), {d_out, d_weights});
  }
  double loss() const {
    const AttentionReference forward = attention_forward_reference(problem.call(), {.probs = true});
    double loss = dot(d_out, forward.out);
    if (problem.spec.weights == WeightsMode::kPerHead) loss += dot(d_weights, forward.probs);
    if (problem.spec.weights == WeightsMode::kAverage) {
      loss += dot(d_weights, mean_over_heads(forward.probs));
    }
    return loss;
  }
};

// Fourth-order central difference of the loss in every element of `input`.
void expect_matches_differences(const Setting& setting, const TensorView& input,
                                const Tensor& gradient, const std::string& what) {
  constexpr double kStep = kDifferenceStep;
  Tensor truth(DType::kFloat64, input.shape()), budget(DType::kFloat64, input.shape());
  for_each_index(input.shape(), [&](const Index& at) {
    const double x = read(input, at);
    const auto loss_at = [&](double step) {
      write(input, at, x + step);
      return setting.loss();
    };
    const double near = loss_at(kStep) - loss_at(-kStep);
    const double far = loss_at(2 * kStep) - loss_at(-2 * kStep);
    write(input, at, x);
    write(truth, at, std::isfinite(x) ? (8 * near - far) / (12 * kStep) : 0);
  });
  fill(budget, kDifferenceBudget);
  expect_within_budget(gradient, truth, budget,
                       {"backward_reference.differences", what, Zeros::kPlausible});
}

class BackwardReference : public ::testing::TestWithParam<AttentionCase> {};

TEST_P(BackwardReference, MatchesDifferencesInEveryInput) {
  const Setting setting(GetParam());
  const AttentionProblem& problem = setting.problem;
  const ReferenceGradients gradients = setting.gradients();
  const std::string what = GetParam().describe();
  expect_matches_differences(setting, problem.query.view(), gradients.d_query, "query, " + what);
  expect_matches_differences(setting, problem.key.view(), gradients.d_key, "key, " + what);
  expect_matches_differences(setting, problem.value.view(), gradients.d_value, "value, " + what);
  if (GetParam().extra > 0) {
    expect_matches_differences(setting, problem.extra_key.view(), gradients.d_extra_key,
                               "extra key, " + what);
    expect_matches_differences(setting, problem.extra_value.view(), gradients.d_extra_value,
                               "extra value, " + what);
  }
  ASSERT_EQ(gradients.d_masks.size(), problem.masks.size());
  for (size_t n = 0, tensor = 0; n < problem.masks.size(); ++n) {
    const Mask::Kind kind = problem.masks[n].kind();
    EXPECT_EQ(gradients.d_masks[n].defined(), kind == kAdditive);
    if (kind == kCausal) continue;
    const TensorView mask = problem.mask_tensors[tensor++].view();
    if (kind == kAdditive) {
      expect_matches_differences(setting, mask, gradients.d_masks[n], "mask, " + what);
    }
  }
}

// A direction in the space of query, key and value.
struct Direction {
  Tensor query, key, value;

  explicit Direction(const AttentionCall& call)
      : query(random_like(call.query.shape(), 7)),
        key(random_like(call.key.shape(), 8)),
        value(random_like(call.value.shape(), 9)) {}
};

// How fast the scores of one row change along the direction, [S + X].
std::vector<double> score_rates(const AttentionCall& call, const Direction& x, const Index& row) {
  const int64_t b = row[0], h = row[1], i = row[2], g = call.kv_head(h), s = call.kv_len();
  std::vector<double> rates(static_cast<size_t>(s + call.num_extra()));
  for (int64_t j = 0; j < s + call.num_extra(); ++j) {
    double& rate = rates[static_cast<size_t>(j)];
    for (int64_t d = 0; d < call.head_dim(); ++d) {
      const double key = j < s ? read(call.key, {b, g, j, d}) : read(call.extra_key, {g, j - s, d});
      rate += call.scale * read(x.query, {b, h, i, d}) * key;
      if (j < s) rate += call.scale * read(call.query, {b, h, i, d}) * read(x.key, {b, g, j, d});
    }
  }
  return rates;
}

struct SumAndSize {
  double sum = 0, size = 0;
  void add(double term) {
    sum += term;
    size += std::abs(term);
  }
};

Tensor probs_before_dropout(AttentionCall call) {
  call.dropout = {};
  return attention_forward_reference(call, {.probs = true}).probs;
}

// <cotangents, J x> by the product rule: dp = kept p (ds - sum p ds), d(out) = dp v + kept p dv.
SumAndSize forward_derivative(const Setting& setting, const Direction& x) {
  const AttentionCall call = setting.problem.call();
  const Tensor probs = probs_before_dropout(call);
  SumAndSize total;
  const int64_t rows[] = {call.batch(), call.num_heads(), call.q_len()};
  for_each_index(rows, [&](const Index& row) {
    const int64_t b = row[0], h = row[1], i = row[2], g = call.kv_head(h), s = call.kv_len();
    const std::vector<double> rates = score_rates(call, x, row);
    double mean = 0;
    for (int64_t j = 0; j < s + call.num_extra(); ++j) {
      mean += read(probs, {b, h, i, j}) * rates[static_cast<size_t>(j)];
    }
    for (int64_t j = 0; j < s + call.num_extra(); ++j) {
      const double p = call.kept(b, h, i, j) * read(probs, {b, h, i, j});
      const double dp = p * (rates[static_cast<size_t>(j)] - mean);
      for (int64_t d = 0; d < call.v_head_dim(); ++d) {
        const double d_out = read(setting.d_out, {b, h, i, d});
        total.add(d_out * dp *
                  (j < s ? read(call.value, {b, g, j, d}) : read(call.extra_value, {g, j - s, d})));
        if (j < s) total.add(d_out * p * read(x.value, {b, g, j, d}));
      }
      if (call.weights_mode == WeightsMode::kPerHead) {
        total.add(read(setting.d_weights, {b, h, i, j}) * dp);
      } else if (call.weights_mode == WeightsMode::kAverage) {
        const auto heads = static_cast<double>(call.num_heads());
        total.add(read(setting.d_weights, {b, i, j}) * dp / heads);
      }
    }
  });
  return total;
}

// <cotangents, J x> == <J^T cotangents, x> for a random direction x.
TEST_P(BackwardReference, IsTheAdjointOfTheForwardDerivative) {
  const Setting setting(GetParam());
  const Direction x(setting.problem.call());
  const ReferenceGradients gradients = setting.gradients();
  const SumAndSize forward = forward_derivative(setting, x);
  SumAndSize backward;
  const auto add_products = [&](const Tensor& gradient, const Tensor& direction) {
    for_each_index(gradient.shape(), [&](const Index& at) {
      backward.add(read(gradient, at) * read(direction, at));
    });
  };
  add_products(gradients.d_query, x.query);
  add_products(gradients.d_key, x.key);
  add_products(gradients.d_value, x.value);
  Tensor got(DType::kFloat64, {1}), truth(DType::kFloat64, {1}), budget(DType::kFloat64, {1});
  fill(got, backward.sum);
  fill(truth, forward.sum);
  fill(budget, unit_roundoff(DType::kFloat64) * kAdjointRoundings * (forward.size + backward.size));
  expect_within_budget(got, truth, budget,
                       {"backward_reference.adjoint", GetParam().describe(), Zeros::kPlausible});
}

INSTANTIATE_TEST_SUITE_P(
    Options, BackwardReference,
    ::testing::Values(
        AttentionCase{.dtype = DType::kFloat64},
        AttentionCase{.batch = 2,
                      .heads = 4,
                      .kv_heads = 2,
                      .q_len = 3,
                      .kv_len = 4,
                      .head_dim = 3,
                      .v_head_dim = 5,
                      .dtype = DType::kFloat64,
                      .weights = WeightsMode::kPerHead,
                      .scale = 0.7},
        AttentionCase{.heads = 4,
                      .kv_heads = 1,
                      .q_len = 3,
                      .kv_len = 5,
                      .head_dim = 2,
                      .v_head_dim = 3,
                      .extra = 2,
                      .dtype = DType::kFloat64,
                      .weights = WeightsMode::kAverage},
        AttentionCase{.batch = 2,
                      .q_len = 4,
                      .kv_len = 5,
                      .head_dim = 3,
                      .v_head_dim = 2,
                      .dtype = DType::kFloat64,
                      .masks = {{.dims = "b11s", .pattern = MaskPattern::kPadding},
                                {.kind = kCausal, .align = CausalAlign::kBottomRight}},
                      .weights = WeightsMode::kAverage},
        AttentionCase{
            .batch = 2,
            .q_len = 4,
            .kv_len = 5,
            .head_dim = 3,
            .v_head_dim = 2,
            .dtype = DType::kFloat64,
            .masks = {{.kind = kAdditive, .dims = "hls", .dtype = DType::kFloat64, .factor = -2},
                      {.kind = kAdditive, .dims = "b11s", .density = 0, .dtype = DType::kFloat64}},
            .weights = WeightsMode::kPerHead},
        AttentionCase{
            .q_len = 6,
            .kv_len = 4,
            .extra = 1,
            .dtype = DType::kFloat64,
            .masks = {{.pattern = MaskPattern::kEmptyRows},
                      {.kind = kAdditive, .dims = "l1", .density = 0, .dtype = DType::kFloat64}}},
        AttentionCase{.q_len = 6,
                      .kv_len = 4,
                      .dtype = DType::kFloat64,
                      .masks = {{.pattern = MaskPattern::kEmptyRows}, {.kind = kCausal}},
                      .weights = WeightsMode::kAverage},
        AttentionCase{.batch = 2,
                      .heads = 4,
                      .q_len = 3,
                      .kv_len = 9,
                      .head_dim = 3,
                      .v_head_dim = 2,
                      .extra = 2,
                      .dtype = DType::kFloat64,
                      .masks = {{.kind = kAdditive, .dims = "hls", .dtype = DType::kFloat64}},
                      .weights = WeightsMode::kPerHead,
                      .dropout_p = 0.3},
        AttentionCase{.q_len = 5,
                      .kv_len = 6,
                      .dtype = DType::kFloat64,
                      .masks = {{.pattern = MaskPattern::kEmptyRows}, {.kind = kCausal}},
                      .weights = WeightsMode::kAverage,
                      .dropout_p = 0.6}));

TEST(BackwardReferenceRules, MatchesDifferencesUnderWhatElseChangesScores) {
  const AttentionCase base = {.batch = 2,
                              .heads = 4,
                              .kv_heads = 2,
                              .q_len = 4,
                              .kv_len = 7,
                              .head_dim = 3,
                              .v_head_dim = 2,
                              .extra = 1,
                              .dtype = DType::kFloat64,
                              .weights = WeightsMode::kAverage};
  AttentionCase capped = base, sinks = base, all = base;
  capped.softcap = 0.7;
  capped.masks = {{.kind = kAdditive, .dims = "hls", .dtype = DType::kFloat64}};
  sinks.sinks = all.sinks = true;
  sinks.masks = {{.pattern = MaskPattern::kEmptyRows}};
  sinks.extra = 0;
  all.softcap = 2;
  all.dropout_p = 0.2;
  all.masks = {{.kind = Mask::Kind::kAlibi, .dims = "bh"},
               {.kind = Mask::Kind::kWindow, .align = 2, .left = 2, .right = 1},
               {.kind = Mask::Kind::kKeyLengths},
               {.kind = Mask::Kind::kSegments, .dims = "bs"}};
  for (const AttentionCase& spec : {capped, sinks, all}) {
    const Setting setting(spec);
    const AttentionProblem& problem = setting.problem;
    const ReferenceGradients gradients = setting.gradients();
    const std::string what = spec.describe();
    expect_matches_differences(setting, problem.query.view(), gradients.d_query, "query, " + what);
    expect_matches_differences(setting, problem.key.view(), gradients.d_key, "key, " + what);
    expect_matches_differences(setting, problem.value.view(), gradients.d_value, "value, " + what);
    EXPECT_EQ(gradients.d_sinks.defined(), spec.sinks);
    if (spec.sinks) {
      expect_matches_differences(setting, problem.sinks.view(), gradients.d_sinks, what);
    }
    if (gradients.d_masks[0].defined()) {
      expect_matches_differences(setting, problem.mask_tensors[0].view(), gradients.d_masks[0],
                                 what);
    }
  }
}

// The gradient of a full additive mask is that of the scores, whose rows sum to 0; and
// sum_j d_value[j] == sum_i d_out[i].
TEST(BackwardReferenceRules, Sums) {
  const Setting setting(
      {.batch = 2,
       .q_len = 7,
       .kv_len = 11,
       .dtype = DType::kFloat64,
       .masks = {{.kind = kAdditive, .dims = "bhls", .density = 0.2, .dtype = DType::kFloat64}}});
  const ReferenceGradients gradients = setting.gradients();
  const auto sum_of = [](const ConstTensorView& view) {
    SumAndSize total;
    for_each_index(view.shape(), [&](const Index& at) { total.add(read(view, at)); });
    return total;
  };
  const double roundings = kAdjointRoundings * unit_roundoff(DType::kFloat64);
  const int64_t heads[] = {2, 2};
  for_each_index(heads, [&](const Index& bh) {
    for (int64_t i = 0; i < 7; ++i) {
      const auto [sum, size] =
          sum_of(gradients.d_masks[0].view().select(0, bh[0]).select(0, bh[1]).select(0, i));
      EXPECT_LE(std::abs(sum), roundings * size);
      EXPECT_GT(size, 0);
    }
    for (int64_t d = 0; d < 8; ++d) {
      const auto [sum, size] =
          sum_of(gradients.d_value.view().select(0, bh[0]).select(0, bh[1]).select(1, d));
      const auto [want, want_size] =
          sum_of(setting.d_out.view().select(0, bh[0]).select(0, bh[1]).select(1, d));
      EXPECT_LE(std::abs(sum - want), roundings * (size + want_size));
    }
  });
}

TEST(BackwardReferenceRules, MaskedNumbersAndEmptyRowsHaveNoGradient) {
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  for (EmptyRow empty_rows : {EmptyRow::kZero, EmptyRow::kNan}) {
    const Setting setting({.q_len = 4,
                           .kv_len = 6,
                           .dtype = DType::kFloat64,
                           .masks = {{.dims = "ls"}},
                           .empty_rows = empty_rows});
    const TensorView mask = setting.problem.mask_tensors[0].view();
    for_each_index(mask.shape(), [&](const Index& at) {
      mask.data_as<bool>()[offset_of(mask, at)] = at[0] == 2 || at[1] == 5;  // row 2, key 5
    });
    fill(setting.problem.key.view().narrow(2, 5, 1), kNan);
    fill(setting.problem.value.view().narrow(2, 5, 1), kNan);
    const ReferenceGradients gradients = setting.gradients();
    const Tensor row = Tensor(gradients.d_query.view().narrow(2, 2, 1));
    const Tensor key = Tensor(gradients.d_key.view().narrow(2, 5, 1));
    const Tensor value = Tensor(gradients.d_value.view().narrow(2, 5, 1));
    expect_same_bits(row, Tensor(DType::kFloat64, row.shape()), "empty row");
    expect_same_bits(key, Tensor(DType::kFloat64, key.shape()), "masked key");
    expect_same_bits(value, Tensor(DType::kFloat64, value.shape()), "masked value");
    EXPECT_TRUE(std::isfinite(dot(gradients.d_query, gradients.d_query)));
    EXPECT_GT(dot(gradients.d_query, gradients.d_query), 0);
  }
}

// A dropped value is not read, and its gradient feels nothing of that row.
TEST(BackwardReferenceRules, DroppedValuesHaveNoGradient) {
  const Setting setting({.q_len = 1, .kv_len = 12, .dtype = DType::kFloat64, .dropout_p = 0.5});
  const ReferenceGradients clean = setting.gradients();
  const AttentionCall call = setting.problem.call();
  const int64_t pairs[] = {2, 12};
  int64_t dropped = 0;
  for_each_index(pairs, [&](const Index& at) {
    const TensorView value = setting.problem.value.view().select(1, at[0]).narrow(1, at[1], 1);
    if (call.kept(0, at[0], 0, at[1]) > 0) return;
    ++dropped;
    fill(value, std::numeric_limits<double>::quiet_NaN());
    const Tensor gradient(clean.d_value.view().select(1, at[0]).narrow(1, at[1], 1));
    expect_same_bits(gradient, Tensor(DType::kFloat64, gradient.shape()), "dropped value");
  });
  EXPECT_GT(dropped, 0);
  const ReferenceGradients spoiled = setting.gradients();
  expect_same_bits(spoiled.d_query, clean.d_query, "query");
  expect_same_bits(spoiled.d_key, clean.d_key, "key");
  expect_same_bits(spoiled.d_value, clean.d_value, "value");
}

}  // namespace
}  // namespace polyhead::oracle
