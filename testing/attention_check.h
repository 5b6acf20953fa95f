// The op against its double reference, on every instruction set and plan.
#pragma once

#include <functional>
#include <string>

#include "attention/attention_reference.h"
#include "testing/attention_case.h"

namespace polyhead::oracle {

// The truth of one call, weights in the form the call asks for.
struct AttentionTruth {
  AttentionReference reference;
  Tensor weights, weights_budget;  // float64; not defined for WeightsMode::kNone
};
AttentionTruth truth_of(const AttentionCall& call);

// Expects out, lse and weights within budget and nothing else written. `suite` heads the lines of
// the ledger: "<suite>.float32.out".
void expect_truth(const AttentionRun& run, const AttentionTruth& truth, const std::string& suite,
                  const std::string& what);

// Runs body(plan, what) on every ISA with every plan that supports the call.
void for_each_kernel(
    const AttentionCall& call,
    const std::function<void(const std::string& plan, const std::string& what)>& body);

// out, lse and weights have the same bits.
void expect_same_run(const AttentionRun& a, const AttentionRun& b, const std::string& what);

// Draws the case, and runs it on every ISA and every plan that supports it.
void check_case(const AttentionCase& spec, const std::string& suite);

}  // namespace polyhead::oracle
