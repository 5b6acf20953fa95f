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

}  // namespace

Comparison compare(const ConstTensorView& got, const ConstTensorView& want,
                   const ConstTensorView& budget) {
  Comparison result;
  result.count = want.numel();
  int64_t worst = -1;
  const std::vector<double> got_numbers = numbers_of(got), want_numbers = numbers_of(want),
                            budget_numbers = numbers_of(budget);
  for (size_t n = 0; n < want_numbers.size(); ++n) {
    if (std::isnan(got_numbers[n]) && std::isnan(want_numbers[n])) {
      ++result.both_nan;
      continue;
    }
    if (std::isfinite(want_numbers[n])) {
      ++result.finite;
      if (!std::isfinite(got_numbers[n])) ++result.overflowed;
    }
    const double error = error_of(got_numbers[n], want_numbers[n]);
    const double share = share_of(error, budget_numbers[n]);
    result.worst_error = std::max(result.worst_error, error);
    if (worst >= 0 && share <= result.worst_share) continue;
    worst = static_cast<int64_t>(n);
    result.worst_share = share;
    result.got = got_numbers[n];
    result.want = want_numbers[n];
    result.budget = budget_numbers[n];
  }
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
