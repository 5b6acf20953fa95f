#include "testing/backward_check.h"

#include <cstring>

#include <gtest/gtest.h>
#include "base/message.h"
#include "testing/attention_check.h"
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"

namespace polyhead::oracle {
namespace {

GuardedTensor like(const ConstTensorView& view, DType dtype, Storage storage) {
  return view.defined() ? GuardedTensor(dtype, view.shape(), storage) : GuardedTensor();
}

bool has_gradient(const Mask& mask) {
  return mask.kind() == Mask::Kind::kAdditive &&
         (mask.tensor().dtype() == DType::kFloat32 || mask.tensor().dtype() == DType::kFloat64);
}

void expect_gradient(const GuardedTensor& got, const Tensor& truth, const Tensor& budget,
                     const CheckContext& context) {
  if (!got.defined()) return;
  expect_within_budget(got.view(), truth, budget, context);
  EXPECT_TRUE(got.intact()) << "written outside " << context.suite << ": " << context.what;
}

void expect_gradients(const BackwardRun& run, const ReferenceGradients& truth,
                      const ReferenceGradients& budget, const std::string& head,
                      const std::string& what) {
  const auto check = [&](const GuardedTensor& got, const Tensor& want, const Tensor& may_err,
                         const char* name) {
    expect_gradient(got, want, may_err, {head + name, what, Zeros::kPlausible});
  };
  check(run.d_query, truth.d_query, budget.d_query, ".d_query");
  check(run.d_key, truth.d_key, budget.d_key, ".d_key");
  check(run.d_value, truth.d_value, budget.d_value, ".d_value");
  check(run.d_extra_key, truth.d_extra_key, budget.d_extra_key, ".d_extra_key");
  check(run.d_extra_value, truth.d_extra_value, budget.d_extra_value, ".d_extra_value");
  check(run.d_sinks, truth.d_sinks, budget.d_sinks, ".d_sinks");
  for (size_t n = 0; n < run.d_masks.size(); ++n) {
    check(run.d_masks[n], truth.d_masks[n], budget.d_masks[n], ".d_mask");
  }
}

void expect_same(const GuardedTensor& a, const GuardedTensor& b, const std::string& what) {
  if (a.defined() && b.defined()) expect_same_bits(a.view(), b.view(), what);
}

}  // namespace

BackwardProblem::BackwardProblem(const AttentionCase& spec, bool loss_sees_weights)
    : problem(spec), forward(run_attention_case(problem.call(), "", spec.storage)) {
  Random random(spec.seed + 1000);
  const auto normal = [&](const Index&) { return random.normal(); };
  d_out = like(forward.out.view(), spec.dtype, spec.storage);
  fill_with(d_out.view(), normal);
  if (!loss_sees_weights || !forward.weights.defined()) return;
  d_weights = like(forward.weights.view(), spec.dtype, spec.storage);
  fill_with(d_weights.view(), normal);
}

bool BackwardRun::intact() const {
  bool intact = d_query.intact() && d_key.intact() && d_value.intact() && d_extra_key.intact() &&
                d_extra_value.intact() && d_sinks.intact();
  for (const GuardedTensor& mask : d_masks) intact = intact && mask.intact();
  return intact;
}

BackwardRun run_backward(const AttentionCall& call, const AttentionBackwardInputs& inputs,
                         const Wanted& wanted, Storage storage) {
  BackwardCall backward{.call = call};
  backward.inputs = inputs;
  const DType dtype = call.query.dtype();
  BackwardRun run;
  if (wanted.query) run.d_query = like(call.query, dtype, storage);
  if (wanted.key) run.d_key = like(call.key, dtype, storage);
  if (wanted.value) run.d_value = like(call.value, dtype, storage);
  if (wanted.extra) run.d_extra_key = like(call.extra_key, dtype, storage);
  if (wanted.extra) run.d_extra_value = like(call.extra_value, dtype, storage);
  if (wanted.sinks) run.d_sinks = like(call.sinks, dtype, storage);
  std::vector<TensorView> d_masks;
  for (const Mask& mask : call.masks) {
    const bool has = wanted.masks && has_gradient(mask);
    run.d_masks.push_back(has ? like(mask.tensor(), dtype, storage) : GuardedTensor());
    d_masks.push_back(run.d_masks.back().view());
  }
  backward.d_query = run.d_query.view();
  backward.d_key = run.d_key.view();
  backward.d_value = run.d_value.view();
  backward.d_extra_key = run.d_extra_key.view();
  backward.d_extra_value = run.d_extra_value.view();
  backward.d_masks = d_masks;
  backward.d_sinks = run.d_sinks.view();
  validate(backward, "attention_backward");
  run_attention_backward(backward);
  return run;
}

BackwardRun run_backward_case(const BackwardProblem& problem, const std::string& plan,
                              const Wanted& wanted) {
  AttentionCall call = problem.problem.call();
  if (!plan.empty()) call.plan = plan.c_str();
  return run_backward(call, problem.inputs(), wanted, problem.problem.spec.storage);
}

void expect_same_gradients(const BackwardRun& a, const BackwardRun& b, const std::string& what) {
  expect_same(a.d_query, b.d_query, "d_query: " + what);
  expect_same(a.d_key, b.d_key, "d_key: " + what);
  expect_same(a.d_value, b.d_value, "d_value: " + what);
  expect_same(a.d_extra_key, b.d_extra_key, "d_extra_key: " + what);
  expect_same(a.d_extra_value, b.d_extra_value, "d_extra_value: " + what);
  expect_same(a.d_sinks, b.d_sinks, "d_sinks: " + what);
  for (size_t n = 0; n < a.d_masks.size(); ++n) {
    expect_same(a.d_masks[n], b.d_masks[n], message("d_masks[", n, "]: ", what));
  }
}

std::vector<std::string> backward_plans_for(const BackwardProblem& problem) {
  BackwardCall backward{.call = problem.problem.call()};
  Tensor any(backward.call.query.dtype(), {1});
  backward.d_query = any;
  backward.d_key = any;
  std::vector<std::string> names;
  for (const BackwardPlan& plan : backward_plans()) {
    const bool reference = std::strcmp(plan.name, "backward_reference") == 0;
    backward.call.plan = plan.name;
    if (!reference && plan.fits(backward)) names.emplace_back(plan.name);
  }
  if (names.empty()) names.emplace_back("backward_reference");
  return names;
}

void for_each_backward(
    const BackwardProblem& problem,
    const std::function<void(const std::string& plan, const std::string& what)>& body) {
  for_each_isa([&](const std::string& isa) {
    for (const std::string& plan : backward_plans_for(problem)) body(plan, isa + ", plan " + plan);
  });
}

void check_backward_case(const AttentionCase& spec, const std::string& suite) {
  const BackwardProblem problem(spec);
  const ReferenceGradients truth =
      attention_backward_reference(problem.problem.call(), problem.cotangents());
  const ReferenceGradients budget = backward_budget(problem);
  const std::string head = suite + "." + dtype_name(spec.dtype);
  OneAnswer<BackwardRun> answer(expect_same_gradients);
  for_each_backward(problem, [&](const std::string& plan, const std::string& kernel) {
    const std::string what = spec.describe() + ", " + kernel;
    BackwardRun run = run_backward_case(problem, plan);
    expect_gradients(run, truth, budget, head, what);
    answer.add(std::move(run), what);
  });
  if (spec.threads == 0) return;
  const Threads threads(spec.threads);
  answer.add(run_backward_case(problem), spec.describe() + ", on its threads");
}

}  // namespace polyhead::oracle
