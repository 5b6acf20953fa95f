// The one way to say that a floating-point result is right.
//
//   const AttentionReference truth = attention_forward_reference(call, {.budget = true});
//   expect_within_budget(out, truth.out, truth.out_budget, {"attention.float32", "causal, L = 5"});
//
// Within budget: for every element !(|got - truth| <= C * budget) is false; NaN is demanded where
// the truth is NaN, the same infinity where it is infinite, nothing else anywhere. Bitwise
// properties use expect_same_bits and know no tolerance.
#pragma once

#include <string>

#include <polyhead/tensor_view.h>

namespace polyhead::oracle {

struct Comparison {
  bool ok = true;
  double use = 0;      // max(err / budget), 0 / 0 being 0
  double max_err = 0;  // over the finite elements, as is mean_err
  double mean_err = 0;
  std::string report;  // worst place, got, want, budget, norms; empty if ok
};

// got float32 or float64, any strides; truth and budget float64 of the same shape. Also refuses a
// comparison that proves nothing: when most non-zero truths are smaller than what they may err by.
enum class Zeros { kDistrusted, kPlausible };
Comparison compare_within_budget(const ConstTensorView& got, const ConstTensorView& truth,
                                 const ConstTensorView& budget, double allowed_use,
                                 Zeros zeros = Zeros::kDistrusted);

// Where a comparison belongs: its line of the headroom ledger, and what to print on failure.
struct CheckContext {
  std::string suite;
  std::string what = {};
  Zeros zeros = Zeros::kDistrusted;  // plausible where an answer near 0 is like any other: lse
};

// compare_within_budget with the C of testing/tolerance.h, as a GoogleTest expectation that also
// records the headroom.
bool expect_within_budget(const ConstTensorView& got, const ConstTensorView& truth,
                          const ConstTensorView& budget, const CheckContext& context);

// The ratio alarm: worst and mean error at most kRatioToNaive times the naive result's, plus a
// floor for rounding the answer.
Comparison compare_with_naive(const ConstTensorView& got, const ConstTensorView& naive,
                              const ConstTensorView& truth);
bool expect_no_worse_than_naive(const ConstTensorView& got, const ConstTensorView& naive,
                                const ConstTensorView& truth, const std::string& what);

// Equal shape, dtype and bits; 0 and -0 differ. Any NaN equals any other: payloads are not
// promised.
Comparison compare_bits(const ConstTensorView& a, const ConstTensorView& b);
bool expect_same_bits(const ConstTensorView& a, const ConstTensorView& b, const std::string& what);

}  // namespace polyhead::oracle
