// The op's backward against its double reference, on every instruction set and plan.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "attention/attention_backward.h"
#include "attention/attention_backward_reference.h"
#include "testing/attention_case.h"

namespace polyhead::oracle {

// A problem, what the forward wrote for it, and random cotangents.
struct BackwardProblem {
  // `loss_sees_weights`: whether there are d_weights, where the case has weights at all.
  explicit BackwardProblem(const AttentionCase& spec, bool loss_sees_weights = true);

  AttentionBackwardInputs inputs() const {
    const TensorView rest = problem.spec.with_rest ? forward.lse_rest.view() : TensorView();
    return {forward.out.view(), forward.lse.view(), d_out.view(), d_weights.view(), rest};
  }
  AttentionCotangents cotangents() const { return {d_out.view(), d_weights.view()}; }

  AttentionProblem problem;
  AttentionRun forward;
  GuardedTensor d_out, d_weights;
};

struct BackwardRun {
  GuardedTensor d_query, d_key, d_value, d_extra_key, d_extra_value, d_sinks;
  std::vector<GuardedTensor> d_masks;  // undefined for masks without a gradient
  bool intact() const;
};

// Which gradients to ask for.
struct Wanted {
  bool query = true, key = true, value = true, extra = true, masks = true, sinks = true;
};

// Validates and runs with gradients of its own, NaN before the call, in `storage`.
BackwardRun run_backward(const AttentionCall& call, const AttentionBackwardInputs& inputs,
                         const Wanted& wanted = {}, Storage storage = Storage::kContiguous);
// Plan: "" is the op's choice.
BackwardRun run_backward_case(const BackwardProblem& problem, const std::string& plan = "",
                              const Wanted& wanted = {});

// What a correct kernel in the query's dtype may differ by, element for element; the structure is
// the reference's. Every rounding on the way from the inputs, the saved out and lse included.
ReferenceGradients backward_budget(const BackwardProblem& problem);

// All gradients have the same bits.
void expect_same_gradients(const BackwardRun& a, const BackwardRun& b, const std::string& what);

// Names of the plans that fit, without the reference.
std::vector<std::string> backward_plans_for(const BackwardProblem& problem);

// Runs body(plan, what) on every ISA with every plan that fits.
void for_each_backward(
    const BackwardProblem& problem,
    const std::function<void(const std::string& plan, const std::string& what)>& body);

// Draws the case and runs it on every ISA and every plan that fits: within budget, and the same
// bits wherever they are promised.
void check_backward_case(const AttentionCase& spec, const std::string& suite);

}  // namespace polyhead::oracle
