#include "testing/attention_check.h"

#include <cmath>

#include <gtest/gtest.h>
#include "testing/compare.h"
#include "testing/elements.h"
#include "testing/machine.h"
#include "testing/naive_attention.h"
#include "testing/tolerance.h"

namespace polyhead::oracle {
namespace {

// Rows that are few or whose answer is one value have no statistics to compare.
constexpr int64_t kRatioFrom = 256;

// [B, H, L, S] -> [B, L, S]
Tensor mean_over_heads(const Tensor& tensor) {
  Tensor mean(DType::kFloat64, {tensor.size(0), tensor.size(2), tensor.size(3)});
  for_each_index(tensor.shape(), [&](const Index& at) {
    const Index to = {at[0], at[2], at[3]};
    write(mean, to, read(mean, to) + read(tensor, at) / static_cast<double>(tensor.size(1)));
  });
  return mean;
}

void expect_ratio(const AttentionRun& run, const AttentionTruth& truth, const Tensor& naive,
                  const std::string& what) {
  if (!naive.defined() || run.out.view().numel() < kRatioFrom) return;
  expect_no_worse_than_naive(run.out.view(), naive, truth.reference.out, what);
}

}  // namespace

AttentionTruth truth_of(const AttentionCall& call) {
  const bool weights = call.weights_mode != WeightsMode::kNone;
  AttentionTruth truth;
  truth.reference = attention_forward_reference(call, {.probs = weights, .budget = true});
  if (call.weights_mode == WeightsMode::kPerHead) {
    truth.weights = truth.reference.probs;
    truth.weights_budget = truth.reference.probs_budget;
  } else if (weights) {
    truth.weights = mean_over_heads(truth.reference.probs);
    truth.weights_budget = mean_over_heads(truth.reference.probs_budget);
    // The sum over the heads and its division round too.
    const double u = unit_roundoff(call.query.dtype());
    const double roundings = std::sqrt(static_cast<double>(call.num_heads())) + 1;
    fill_with(truth.weights_budget, [&](const Index& at) {
      return read(truth.weights_budget, at) + u * roundings * read(truth.weights, at);
    });
  }
  return truth;
}

void expect_truth(const AttentionRun& run, const AttentionTruth& truth, const std::string& suite,
                  const std::string& what) {
  const std::string head = suite + "." + dtype_name(run.out.view().dtype());
  const AttentionReference& reference = truth.reference;
  expect_within_budget(run.out.view(), reference.out, reference.out_budget, {head + ".out", what});
  expect_within_budget(run.lse.view(), reference.lse, reference.lse_budget,
                       {head + ".lse", what, Zeros::kPlausible});
  if (run.weights.defined()) {
    expect_within_budget(run.weights.view(), truth.weights, truth.weights_budget,
                         {head + ".weights", what});
  }
  EXPECT_TRUE(run.intact()) << "written outside the outputs: " << what;
}

void expect_same_run(const AttentionRun& a, const AttentionRun& b, const std::string& what) {
  expect_same_bits(a.out.view(), b.out.view(), "out: " + what);
  expect_same_bits(a.lse.view(), b.lse.view(), "lse: " + what);
  expect_same_bits(a.lse_rest.view(), b.lse_rest.view(), "lse_rest: " + what);
  ASSERT_EQ(a.weights.defined(), b.weights.defined());
  if (a.weights.defined()) {
    expect_same_bits(a.weights.view(), b.weights.view(), "weights: " + what);
  }
}

void expect_same_part(const AttentionRun& part, const AttentionRun& whole, int dim, int64_t first,
                      const std::string& what) {
  const int64_t count = part.out.view().size(dim);
  expect_same_bits(part.out.view(), whole.out.view().narrow(dim, first, count), "out: " + what);
  expect_same_bits(part.lse.view(), whole.lse.view().narrow(dim, first, count), "lse: " + what);
  if (!part.weights.defined()) return;
  const bool averaged = part.weights.view().rank() == 3;  // [B, L, S]
  const TensorView of_whole =
      whole.weights.view().narrow(averaged && dim == 2 ? 1 : dim, first, count);
  expect_same_bits(part.weights.view(), of_whole, "weights: " + what);
}

void for_each_kernel(
    const AttentionCall& call,
    const std::function<void(const std::string& plan, const std::string& what)>& body) {
  for_each_isa([&](const std::string& isa) {
    for (const std::string& plan : plans_for(call)) body(plan, isa + ", plan " + plan);
  });
}

void check_case(const AttentionCase& spec, const std::string& suite) {
  const AttentionProblem problem(spec);
  const AttentionCall call = problem.call();
  const AttentionTruth truth = truth_of(call);
  Tensor naive;
  if (spec.dtype == DType::kFloat32 && !spec.packed()) naive = naive_attention(call);
  OneAnswer<AttentionRun> answer(expect_same_run);
  for_each_kernel(call, [&](const std::string& plan, const std::string& kernel) {
    const std::string what = spec.describe() + ", " + kernel;
    AttentionRun run = run_attention_case(call, plan, spec.storage);
    expect_truth(run, truth, suite, what);
    expect_ratio(run, truth, naive, what);
    answer.add(std::move(run), what);
  });
  if (spec.threads == 0) return;
  const Threads threads(spec.threads);
  answer.add(run_attention_case(call), spec.describe() + ", on its threads");
}

}  // namespace polyhead::oracle
