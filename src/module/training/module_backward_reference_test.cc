// The oracle of the module's backward, tested itself: every gradient against differences of a
// float64 forward, all options among the cases, and directional differences of random ones.
#include "module/training/module_backward_reference.h"

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include "module/training/training_case.h"
#include "testing/compare.h"
#include "testing/tolerance.h"

namespace polyhead {
namespace {

using oracle::MaskKind;
using oracle::Sharing;
using oracle::TrainingProblem;
using oracle::TrainingSpec;

double dot(const ConstTensorView& a, const ConstTensorView& b) {
  double sum = 0;
  oracle::for_each_index(a.shape(), [&](const oracle::Index& at) {
    sum += oracle::read(a, at) * oracle::read(b, at);
  });
  return sum;
}

// What the cotangents are the derivative of.
double loss(const TrainingProblem& problem) {
  TrainingContext context;
  context.dropout = problem.dropout;
  const auto [out, weights] = problem.module.forward(
      problem.query, problem.key_view(), problem.value_view(), problem.options(), &context);
  double loss = dot(problem.d_out, out);
  if (weights.defined()) loss += dot(problem.d_weights, weights);
  return loss;
}

// Fourth-order central difference of the loss as `move` moves something by a step.
double difference(const TrainingProblem& problem, const std::function<void(double)>& move) {
  constexpr double kStep = oracle::kDifferenceStep;
  const auto loss_at = [&](double step) {
    move(step);
    return loss(problem);
  };
  const double near = loss_at(kStep) - loss_at(-kStep);
  const double far = loss_at(2 * kStep) - loss_at(-2 * kStep);
  move(0);
  return (8 * near - far) / (12 * kStep);
}

// A tensor that the loss depends on, its gradient, and what is to be done when it has changed.
struct Variable {
  std::string name;
  TensorView values;
  Tensor gradient;
};

std::vector<Variable> variables(TrainingProblem& problem) {
  ModuleBackwardReference r = module_backward_reference(problem.module, problem.reference_step());
  std::vector<Variable> all;
  if (problem.spec.sharing == Sharing::kNone) {  // else its gradient is the sum of several
    all = {{"query", problem.query.view(), r.d_query.value},
           {"key", problem.key.view(), r.d_key.value},
           {"value", problem.value.view(), r.d_value.value}};
  }
  if (problem.spec.attn_mask == MaskKind::kFloat) {
    all.push_back({"attn_mask", problem.attn_mask.view(), r.d_attn_mask.value});
  }
  if (problem.spec.padding == MaskKind::kFloat) {
    all.push_back({"padding", problem.padding.view(), r.d_key_padding_mask.value});
  }
  const ParameterViews parameters = problem.module.parameters();
  for (size_t i = 0; i < parameters.size(); ++i) {
    EXPECT_EQ(parameters[i].first, r.parameters[i].first);
    all.push_back({parameters[i].first, parameters[i].second, r.parameters[i].second.value});
  }
  return all;
}

void expect_differences(const TrainingSpec& spec) {
  TrainingProblem problem(spec);
  for (const Variable& variable : variables(problem)) {
    Tensor truth(DType::kFloat64, variable.values.shape()), budget = truth;
    oracle::for_each_index(variable.values.shape(), [&](const oracle::Index& at) {
      const double x = oracle::read(variable.values, at);
      if (!std::isfinite(x)) return;  // a mask that hides
      oracle::write(truth, at, difference(problem, [&](double step) {
                      oracle::write(variable.values, at, x + step);
                      problem.module.repack();
                    }));
    });
    oracle::fill(budget, oracle::kDifferenceBudget);
    oracle::expect_within_budget(
        variable.gradient, truth, budget,
        {"module.backward_reference.differences", spec.describe() + ": " + variable.name,
         oracle::Zeros::kPlausible});
  }
}

TEST(ModuleBackwardReference, MatchesDifferencesInEverything) {
  const auto d = DType::kFloat64;
  const TrainingSpec specs[] = {
      {.dtype = d, .batch = 2, .q_len = 3, .kv_len = 4, .heads = 2, .head_dim = 2},
      {.dtype = d,
       .batch = 1,
       .q_len = 3,
       .kv_len = 3,
       .heads = 2,
       .head_dim = 3,
       .bias = false,
       .bias_kv = true,
       .unbatched = true,
       .sharing = Sharing::kAll,
       .attn_mask = MaskKind::kFloat,
       .weights = WeightsMode::kAverage},
      {.dtype = d,
       .batch = 2,
       .q_len = 4,
       .kv_len = 3,
       .heads = 3,
       .head_dim = 1,
       .kdim = 2,
       .vdim = 5,
       .bias_kv = true,
       .zero_attn = true,
       .layout = Layout::kSequenceFirst,
       .attn_mask = MaskKind::kFloat,
       .padding = MaskKind::kFloat,
       .attn_rank = 3,
       .weights = WeightsMode::kPerHead,
       .dropout = 0.3},
      {.dtype = d,
       .batch = 2,
       .q_len = 3,
       .kv_len = 5,
       .heads = 1,
       .head_dim = 4,
       .padding = MaskKind::kBool,
       .hides_rows = true,
       .causal = true,
       .align = CausalAlign::kBottomRight,
       .weights = WeightsMode::kAverage,
       .dropout = 0.5}};
  for (const TrainingSpec& spec : specs) expect_differences(spec);
}

TEST(ModuleBackwardReference, MatchesDifferencesInWhatTorchHasNot) {
  const auto d = DType::kFloat64;
  const TrainingSpec specs[] = {{.dtype = d,
                                 .batch = 2,
                                 .q_len = 3,
                                 .kv_len = 3,
                                 .heads = 4,
                                 .head_dim = 2,
                                 .kv_heads = 2,
                                 .embed = 3,
                                 .bias_kv = true,
                                 .weights = WeightsMode::kPerHead},
                                {.dtype = d,
                                 .batch = 2,
                                 .q_len = 3,
                                 .kv_len = 4,
                                 .heads = 2,
                                 .head_dim = 4,
                                 .kv_heads = 1,
                                 .qk_norm = true,
                                 .qk_norm_eps = 0.5,
                                 .rope = {.pairs = RopePairs::kInterleaved, .base = 10},
                                 .query_position = 2,
                                 .weights = WeightsMode::kAverage}};
  for (const TrainingSpec& spec : specs) expect_differences(spec);
}

// <gradient, x> is the derivative along x, everything moving at once.
TEST(ModuleBackwardReference, MatchesDifferencesAlongRandomDirections) {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    TrainingSpec spec = oracle::random_training_spec(seed, DType::kFloat64);
    spec.sharing = Sharing::kNone;
    spec.deviation = 0.5;  // a difference needs a smooth loss
    spec.qk_norm_eps = 0.5;
    TrainingProblem problem(spec);
    const std::vector<Variable> moved = variables(problem);
    std::vector<Tensor> start, direction;
    double derivative = 0, size = 0;
    for (const Variable& variable : moved) {
      start.emplace_back(variable.values);
      direction.emplace_back(DType::kFloat64, variable.values.shape());
      oracle::Random random(seed + start.size());
      oracle::fill_with(direction.back(), [&](const oracle::Index&) { return random.normal(); });
      const double length = std::sqrt(dot(direction.back(), direction.back())) + 1;
      oracle::for_each_index(variable.values.shape(), [&](const oracle::Index& at) {
        const bool finite = std::isfinite(oracle::read(variable.values, at));
        const double x = finite ? oracle::read(direction.back(), at) / length : 0;
        oracle::write(direction.back(), at, x);
        derivative += x * oracle::read(variable.gradient, at);
        size += std::abs(x * oracle::read(variable.gradient, at));
      });
    }
    Tensor got(DType::kFloat64, {1}), truth = got, budget = got;
    oracle::fill(got, derivative);
    oracle::fill(truth, difference(problem, [&](double step) {
                   for (size_t i = 0; i < moved.size(); ++i) {
                     oracle::fill_with(moved[i].values, [&](const oracle::Index& at) {
                       return oracle::read(start[i], at) + step * oracle::read(direction[i], at);
                     });
                   }
                   problem.module.repack();
                 }));
    oracle::fill(budget, oracle::kDifferenceBudget * (1 + size));
    oracle::expect_within_budget(
        got, truth, budget,
        {"module.backward_reference.directions", spec.describe(), oracle::Zeros::kPlausible});
  }
}

}  // namespace
}  // namespace polyhead
