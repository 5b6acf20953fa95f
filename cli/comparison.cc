#include "comparison.h"

#include <cmath>
#include <limits>

#include "numbers.h"

namespace polyhead::cli {
namespace {

// |got - want| and its share of the budget.
double error_of(double got, double want) {
  if (got == want) return 0;
  const double error = std::abs(got - want);
  return std::isfinite(error) ? error : std::numeric_limits<double>::infinity();
}

double share_of(double error, double budget) {
  if (error == 0) return 0;
  // A budget that is zero or NaN allows nothing.
  return budget > 0 && std::isfinite(error) ? error / budget
                                            : std::numeric_limits<double>::infinity();
}

std::vector<int64_t> unravelled(int64_t index, Shape shape) {
  std::vector<int64_t> where(shape.size());
  for (size_t dim = shape.size(); dim-- > 0; index /= shape[dim]) where[dim] = index % shape[dim];
  return where;
}

// Element by element, a row at a time: the weights of long inputs are too many to copy whole. `n`
// is the place of the first element, then of the one behind the last; `worst` that of the worst.
void compare_part(const ConstTensorView& got, const ConstTensorView& want,
                  const ConstTensorView& budget, Comparison& result, int64_t& worst, int64_t& n) {
  if (want.rank() > 1) {
    for (int64_t i = 0; i < want.size(0); ++i) {
      compare_part(got.select(0, i), want.select(0, i), budget.select(0, i), result, worst, n);
    }
    return;
  }
  const std::vector<double> gots = numbers_of(got), wants = numbers_of(want),
                            budgets = numbers_of(budget);
  for (size_t i = 0; i < wants.size(); ++i, ++n) {
    if (std::isnan(gots[i]) && std::isnan(wants[i])) {
      ++result.both_nan;
      continue;
    }
    if (std::isfinite(wants[i])) {
      ++result.finite;
      if (!std::isfinite(gots[i])) ++result.overflowed;
    }
    const double error = error_of(gots[i], wants[i]), share = share_of(error, budgets[i]);
    result.worst_error = std::max(result.worst_error, error);
    if (worst >= 0 && share <= result.worst_share) continue;
    worst = n;
    result.worst_share = share;
    result.got = gots[i];
    result.want = wants[i];
    result.budget = budgets[i];
  }
}

}  // namespace

Comparison compare(const ConstTensorView& got, const ConstTensorView& want,
                   const ConstTensorView& budget) {
  Comparison result;
  result.count = want.numel();
  int64_t worst = -1, n = 0;
  compare_part(got, want, budget, result, worst, n);
  if (worst >= 0) result.where = unravelled(worst, want.shape());
  return result;
}

std::string where_text(const std::vector<int64_t>& where) {
  std::string text = "[";
  for (size_t dim = 0; dim < where.size(); ++dim) {
    text += (dim == 0 ? "" : ", ") + std::to_string(where[dim]);
  }
  return text + "]";
}

}  // namespace polyhead::cli
