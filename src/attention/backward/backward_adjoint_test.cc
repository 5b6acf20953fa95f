// The backward is linear in what it is given, and the adjoint of the forward kernel's derivative.
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include <gtest/gtest.h>
#include "testing/backward_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/tolerance.h"

namespace polyhead::oracle {
namespace {

constexpr auto kAdditive = Mask::Kind::kAdditive;

// Twice the cotangents, twice the gradients: exactly.
TEST(BackwardAdjoint, IsLinearInTheCotangents) {
  const AttentionCase spec = {.batch = 2,
                              .heads = 4,
                              .kv_heads = 2,
                              .q_len = 53,
                              .kv_len = 75,
                              .extra = 1,
                              .masks = {{.kind = kAdditive, .dims = "b1l1", .density = 0}},
                              .weights = WeightsMode::kPerHead};
  const BackwardProblem once(spec);
  BackwardProblem twice(spec);
  for (const TensorView& view : {twice.d_out.view(), twice.d_weights.view()}) {
    fill_with(view, [&](const Index& at) { return 2 * read(view, at); });
  }
  for_each_backward(once, [&](const std::string& plan, const std::string& what) {
    BackwardRun doubled = run_backward_case(once, plan);
    for (const GuardedTensor* gradient :
         {&doubled.d_query, &doubled.d_key, &doubled.d_value, &doubled.d_extra_key,
          &doubled.d_extra_value, &doubled.d_masks[0]}) {
      const TensorView& view = gradient->view();
      fill_with(view, [&](const Index& at) { return 2 * read(view, at); });
    }
    expect_same_gradients(run_backward_case(twice, plan), doubled, what);
  });
}

// <cotangents, outputs> of the forward kernel.
double loss_of(const BackwardProblem& problem) {
  const AttentionRun run = run_attention_case(problem.problem.call());
  double loss = 0;
  const auto add = [&](const ConstTensorView& a, const ConstTensorView& b) {
    if (!a.defined()) return;
    for_each_index(a.shape(), [&](const Index& at) { loss += read(a, at) * read(b, at); });
  };
  add(problem.d_out.view(), run.out.view());
  add(problem.d_weights.view(), run.weights.view());
  return loss;
}

// forward: d_value = p^T d_out, and the p of a row sum to 1, be its scores wherever they may. lse
// alone is off by up to 2^-8 here; in float64, where nothing is wider, lse_rest is 0.
TEST(BackwardAdjoint, ProbabilitiesSumToOneFarFromZero) {
  BackwardProblem problem(
      {.q_len = 53, .kv_len = 75, .masks = {{.kind = kAdditive, .dims = "1s"}}});
  fill(problem.problem.mask_tensors[0].view(), -1e5);
  problem.forward = run_attention_case(problem.problem.call());
  Tensor truth(DType::kFloat64, {2, 8}), budget(DType::kFloat64, {2, 8});  // [H, Dv]
  const auto add = [](Tensor& to, const Index& bhid, double x) {
    write(to, {bhid[1], bhid[3]}, read(to, {bhid[1], bhid[3]}) + x);
  };
  for_each_index(problem.d_out.view().shape(), [&](const Index& at) {
    const double x = read(problem.d_out.view(), at);
    add(truth, at, x);
    add(budget, at, kAdjointRoundings * unit_roundoff(DType::kFloat32) * std::abs(x));
  });
  for_each_backward(problem, [&](const std::string& plan, const std::string& what) {
    const BackwardRun run = run_backward_case(problem, plan);
    Tensor got(DType::kFloat64, {2, 8});
    for_each_index(run.d_value.view().shape(),
                   [&](const Index& at) { add(got, at, read(run.d_value.view(), at)); });
    expect_within_budget(got, truth, budget, {"backward.far", what, Zeros::kPlausible});
  });
}

// A line through the inputs, and the derivative along it by the gradients.
struct Line {
  std::vector<TensorView> inputs;
  std::vector<Tensor> start, direction;
  double derivative = 0, size = 0;

  void add(const TensorView& input, const GuardedTensor& gradient) {
    Random random(inputs.size() + 40);
    const double norm = std::sqrt(static_cast<double>(input.numel()));
    Tensor x(DType::kFloat64, input.shape());
    fill_with(x, [&](const Index&) { return random.normal() / norm; });
    for_each_index(input.shape(), [&](const Index& at) {
      const double term = read(x, at) * read(gradient.view(), at);
      derivative += term;
      size += std::abs(term);
    });
    inputs.push_back(input);
    start.emplace_back(input);
    direction.push_back(std::move(x));
  }
  void move_to(double step) const {
    for (size_t n = 0; n < inputs.size(); ++n) {
      fill_with(inputs[n], [&](const Index& at) {
        return read(start[n], at) + step * read(direction[n], at);
      });
    }
  }
};

// <gradients, x> is the loss's derivative along x, by differences of the forward kernel.
TEST(BackwardAdjoint, IsTheDerivativeOfTheForwardKernel) {
  for (WeightsMode weights : {WeightsMode::kNone, WeightsMode::kAverage, WeightsMode::kPerHead}) {
    const BackwardProblem problem(
        {.batch = 2,
         .heads = 4,
         .kv_heads = 2,
         .q_len = 27,
         .kv_len = 530,
         .extra = 2,
         .dtype = DType::kFloat64,
         .masks = {{.dims = "ls"},
                   {.kind = kAdditive, .dims = "hl1", .density = 0, .dtype = DType::kFloat64},
                   {.kind = Mask::Kind::kCausal, .align = CausalAlign::kBottomRight}},
         .weights = weights});
    for_each_backward(problem, [&](const std::string& plan, const std::string& what) {
      const BackwardRun run = run_backward_case(problem, plan);
      Line line;
      line.add(problem.problem.query.view(), run.d_query);
      line.add(problem.problem.key.view(), run.d_key);
      line.add(problem.problem.value.view(), run.d_value);
      line.add(problem.problem.extra_key.view(), run.d_extra_key);
      line.add(problem.problem.extra_value.view(), run.d_extra_value);
      line.add(problem.problem.mask_tensors[1].view(), run.d_masks[1]);
      const auto difference = [&](double step) {
        line.move_to(step);
        const double ahead = loss_of(problem);
        line.move_to(-step);
        return ahead - loss_of(problem);
      };
      const double near = difference(kDifferenceStep), far = difference(2 * kDifferenceStep);
      line.move_to(0);
      Tensor got(DType::kFloat64, {1}), truth(DType::kFloat64, {1}), budget(DType::kFloat64, {1});
      fill(got, line.derivative);
      fill(truth, (8 * near - far) / (12 * kDifferenceStep));
      fill(budget, kDifferenceBudget * (1 + line.size));
      expect_within_budget(got, truth, budget, {"backward.adjoint", what, Zeros::kPlausible});
    });
  }
}

}  // namespace
}  // namespace polyhead::oracle
