// The op against its double reference, on every instruction set and plan.
#pragma once

#include <functional>
#include <string>
#include <utility>

#include <polyhead/runtime.h>
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

// A run of a part of the call, from index `first` on in `dim` (0: batch, 1: heads, 2: queries; not
// 1 with averaged weights), has the bits of that part of the whole.
void expect_same_part(const AttentionRun& part, const AttentionRun& whole, int dim, int64_t first,
                      const std::string& what);

// Those of a call's runs that promise each other's bits: all but the baseline's.
template <class Run>
class OneAnswer {
 public:
  using Same = void (*)(const Run& a, const Run& b, const std::string& what);
  explicit OneAnswer(Same same) : same_(same) {}

  void add(Run run, const std::string& what) {
    if (isa() == "baseline") return;
    if (!what_.empty()) return same_(first_, run, what + " against " + what_);
    first_ = std::move(run);
    what_ = what;
  }

 private:
  Same same_;
  Run first_;
  std::string what_;
};

// Draws the case, and runs it on every ISA and every plan that supports it: within budget, and the
// same bits wherever they are promised.
void check_case(const AttentionCase& spec, const std::string& suite);

}  // namespace polyhead::oracle
