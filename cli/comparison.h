// How far a result is from the double reference, against what it may be off by.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <polyhead/tensor_view.h>

namespace polyhead::cli {

struct Comparison {
  int64_t count = 0;
  int64_t finite = 0;      // of the reference: only these have an error
  int64_t both_nan = 0;    // NaN in the result and in the reference
  int64_t overflowed = 0;  // not finite in the result, finite in the reference
  double worst_error = 0;  // the largest |got - want|
  double worst_share = 0;  // the largest error / budget; beyond 1 is wrong
  // Where the largest share is, and what is there.
  std::vector<int64_t> where = {};
  double got = 0, want = 0, budget = 0;

  // All that is NaN on both sides agrees, but shows nothing.
  bool compared_nothing() const { return count > 0 && finite == 0; }
  // False for NaN.
  bool within_budget() const { return worst_share <= 1 && !compared_nothing(); }
};

// `got` float32 or float64, `want` and `budget` float64, all of one shape. NaN agrees with NaN and
// an infinity with itself; any other difference that is not finite is beyond every budget.
Comparison compare(const ConstTensorView& got, const ConstTensorView& want,
                   const ConstTensorView& budget);

std::string where_text(const std::vector<int64_t>& where);  // "[0, 4, 17]"

}  // namespace polyhead::cli
