#include "testing/compare.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <iomanip>
#include <limits>
#include <sstream>

#include <gtest/gtest.h>
#include "base/message.h"
#include "testing/elements.h"
#include "testing/headroom.h"
#include "testing/tolerance.h"

namespace polyhead::oracle {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

bool is_real(const ConstTensorView& view) {
  return view.dtype() == DType::kFloat32 || view.dtype() == DType::kFloat64;
}

bool same_shape(const ConstTensorView& a, const ConstTensorView& b) {
  return a.defined() && b.defined() && std::ranges::equal(a.shape(), b.shape());
}

Comparison refuse(const std::string& why) { return {.ok = false, .use = kInf, .report = why}; }

// Collects what the elements say; finish() turns it into the verdict.
class Tally {
 public:
  Tally(double allowed, DType dtype)
      : allowed_(allowed),
        negligible_(0x1p30 * (dtype == DType::kFloat32 ? double{std::numeric_limits<float>::min()}
                                                       : std::numeric_limits<double>::min())) {}

  void element(const Index& index, double got, double truth, double budget) {
    ++count_;
    const double err = std::abs(got - truth);
    const double use = use_of(got, truth, budget, err);
    if (std::isfinite(truth)) {
      result_.max_err = std::max(result_.max_err, std::isfinite(err) ? err : kInf);
      sum_err_ += err;
      sum_squares_ += truth * truth;
      sum_err_squares_ += err * err;
      if (std::abs(truth) > negligible_) ++nonzero_;
      if (std::abs(truth) > negligible_ && std::abs(truth) <= allowed_ * budget) ++accepts_zero_;
    }
    if (!(use <= allowed_)) ++bad_;
    if (use > result_.use || count_ == 1) {
      result_.use = std::max(use, result_.use);
      worst_ = index;
      worst_got_ = got;
      worst_truth_ = truth;
      worst_budget_ = budget;
    }
  }

  Comparison finish(int rank, Zeros zeros) {
    result_.mean_err = count_ ? sum_err_ / static_cast<double>(count_) : 0;
    std::ostringstream text;
    text << std::setprecision(17);
    if (bad_ > 0) {
      text << bad_ << " of " << count_ << " elements beyond the budget; worst at "
           << index_string(worst_, rank) << ": got " << worst_got_ << ", want " << worst_truth_
           << ", may err by " << allowed_ << " * " << worst_budget_ << ", errs by "
           << std::abs(worst_got_ - worst_truth_) << " (use " << result_.use << "); max err "
           << result_.max_err << ", norm of err " << std::sqrt(sum_err_squares_)
           << ", norm of truth " << std::sqrt(sum_squares_);
    } else if (zeros == Zeros::kDistrusted && nonzero_ >= kDistrustFrom &&
               2 * accepts_zero_ > nonzero_) {
      text << "proves nothing: " << accepts_zero_ << " of " << nonzero_
           << " non-zero elements would accept 0 as well";
    }
    result_.report = text.str();
    result_.ok = result_.report.empty();
    return result_;
  }

 private:
  static double use_of(double got, double truth, double budget, double err) {
    if (std::isnan(truth)) return std::isnan(got) ? 0 : kInf;
    if (std::isinf(truth)) return got == truth ? 0 : kInf;
    const bool sane = budget >= 0 && budget < kInf;  // false for NaN
    if (!sane || !std::isfinite(got)) return kInf;
    if (err == 0) return 0;
    return budget > 0 ? err / budget : kInf;
  }

  double allowed_;
  double negligible_;  // may underflow
  Comparison result_;
  int64_t count_ = 0, bad_ = 0, nonzero_ = 0, accepts_zero_ = 0;
  double sum_err_ = 0, sum_squares_ = 0, sum_err_squares_ = 0;
  Index worst_{};
  double worst_got_ = 0, worst_truth_ = 0, worst_budget_ = 0;
};

bool report(const Comparison& comparison, const std::string& what) {
  EXPECT_TRUE(comparison.ok) << what << ": " << comparison.report;
  return comparison.ok;
}

uint64_t bits_at(const ConstTensorView& view, const Index& index) {
  const int64_t offset = offset_of(view, index);
  if (view.dtype() == DType::kFloat32) {
    return std::bit_cast<uint32_t>(view.data_as<float>()[offset]);
  }
  return std::bit_cast<uint64_t>(view.data_as<double>()[offset]);
}

}  // namespace

Comparison compare_within_budget(const ConstTensorView& got, const ConstTensorView& truth,
                                 const ConstTensorView& budget, double allowed_use, Zeros zeros) {
  if (!same_shape(got, truth) || !same_shape(truth, budget)) {
    return refuse(message("shapes differ: got ", got.shape_string(), ", truth ",
                          truth.shape_string(), ", budget ", budget.shape_string()));
  }
  if (!is_real(got) || truth.dtype() != DType::kFloat64 || budget.dtype() != DType::kFloat64) {
    return refuse(message("dtypes: got ", dtype_name(got.dtype()), ", truth ",
                          dtype_name(truth.dtype()), ", budget ", dtype_name(budget.dtype())));
  }
  Tally tally(allowed_use, got.dtype());
  for_each_index(got.shape(), [&](const Index& index) {
    tally.element(index, read(got, index), read(truth, index), read(budget, index));
  });
  return tally.finish(got.rank(), zeros);
}

bool expect_within_budget(const ConstTensorView& got, const ConstTensorView& truth,
                          const ConstTensorView& budget, const CheckContext& context) {
  const Comparison result =
      compare_within_budget(got, truth, budget, allowed_use(got.dtype()), context.zeros);
  if (result.ok) record_headroom(context.suite, result.use);
  return report(result, context.suite + ": " + context.what);
}

Comparison compare_with_naive(const ConstTensorView& got, const ConstTensorView& naive,
                              const ConstTensorView& truth) {
  // A budget of one rounding of the largest answer turns `use` into a count of roundings.
  double largest = 0;
  Tensor budget(DType::kFloat64, truth.shape());
  for_each_index(truth.shape(), [&](const Index& index) {
    if (std::isfinite(read(truth, index)))
      largest = std::max(largest, std::abs(read(truth, index)));
  });
  const double rounding = unit_roundoff(got.dtype()) * largest;
  fill(budget, rounding);
  Comparison ours = compare_within_budget(got, truth, budget, kInf, Zeros::kPlausible);
  const Comparison theirs = compare_within_budget(naive, truth, budget, kInf, Zeros::kPlausible);
  if (!std::isfinite(ours.use)) return refuse("ratio alarm: " + ours.report);
  const double floor = kRatioFloorRoundings * rounding;
  ours.ok = ours.max_err <= kRatioToNaive * theirs.max_err + floor &&
            ours.mean_err <= kRatioToNaive * theirs.mean_err + floor;
  ours.report = message("max err ", ours.max_err, " and mean err ", ours.mean_err,
                        "; naive loops err by ", theirs.max_err, " and ", theirs.mean_err);
  return ours;
}

bool expect_no_worse_than_naive(const ConstTensorView& got, const ConstTensorView& naive,
                                const ConstTensorView& truth, const std::string& what) {
  return report(compare_with_naive(got, naive, truth), "ratio alarm: " + what);
}

Comparison compare_bits(const ConstTensorView& a, const ConstTensorView& b) {
  if (!same_shape(a, b) || a.dtype() != b.dtype() || !is_real(a)) {
    return refuse(message(dtype_name(a.dtype()), " ", a.shape_string(), " is not ",
                          dtype_name(b.dtype()), " ", b.shape_string()));
  }
  Comparison result;
  for_each_index(a.shape(), [&](const Index& index) {
    const double x = read(a, index), y = read(b, index);
    if (bits_at(a, index) == bits_at(b, index) || (std::isnan(x) && std::isnan(y))) return;
    if (result.ok) {
      std::ostringstream text;
      text << std::hexfloat << "bits differ first at " << index_string(index, a.rank()) << ": " << x
           << " and " << y;
      result = refuse(text.str());
    }
  });
  return result;
}

bool expect_same_bits(const ConstTensorView& a, const ConstTensorView& b, const std::string& what) {
  return report(compare_bits(a, b), what);
}

}  // namespace polyhead::oracle
