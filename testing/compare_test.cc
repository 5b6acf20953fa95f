// The comparator and the ledger must reject what is wrong: a comparator that has never seen a
// failing input is not one.
#include "testing/compare.h"

#include <cmath>
#include <limits>
#include <sstream>
#include <vector>

#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>
#include "testing/elements.h"
#include "testing/headroom.h"

namespace polyhead::oracle {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr int64_t kRows = 4, kColumns = 6;

// Truth [4, 6] with both signs, budget a thousandth of each, a result exactly right: the tests
// break one thing each.
struct Fixture {
  Tensor got{DType::kFloat64, {kRows, kColumns}};
  Tensor truth{DType::kFloat64, {kRows, kColumns}};
  Tensor budget{DType::kFloat64, {kRows, kColumns}};

  Fixture() {
    for (int64_t n = 0; n < truth.numel(); ++n) {
      const double x = (n % 2 ? -1.0 : 1.0) * (1 + 0.25 * static_cast<double>(n));
      truth.data_as<double>()[n] = got.data_as<double>()[n] = x;
      budget.data_as<double>()[n] = std::abs(x) / 1024;
    }
  }
  double& at(int64_t row, int64_t column) { return got.data_as<double>()[row * kColumns + column]; }
  Comparison compare() const { return compare_within_budget(got, truth, budget, 1); }
};

TEST(Comparator, AcceptsTheTruthAndWhatIsWithinBudget) {
  Fixture f;
  EXPECT_TRUE(f.compare().ok);
  EXPECT_EQ(f.compare().use, 0);
  f.at(1, 2) *= 1 + 0.5 / 1024;
  EXPECT_TRUE(f.compare().ok) << f.compare().report;
  EXPECT_GT(f.compare().use, 0.4);
  EXPECT_LT(f.compare().use, 0.6);
}

TEST(Comparator, RejectsOneElementBeyondItsBudgetAndNamesIt) {
  Fixture f;
  f.at(2, 3) *= 1 + 2.0 / 1024;
  const Comparison result = f.compare();
  EXPECT_FALSE(result.ok);
  EXPECT_NE(result.report.find("1 of 24"), std::string::npos) << result.report;
  EXPECT_NE(result.report.find("[2, 3]"), std::string::npos) << result.report;
  EXPECT_GT(result.use, 1.9);
}

TEST(Comparator, RejectsNanAndInfinityWhereTheTruthIsFinite) {
  for (double wrong : {kNan, kInf, -kInf}) {
    Fixture f;
    f.at(0, 0) = wrong;
    EXPECT_FALSE(f.compare().ok) << wrong;
    Fixture last;
    last.at(kRows - 1, kColumns - 1) = wrong;
    EXPECT_FALSE(last.compare().ok) << wrong;
  }
}

TEST(Comparator, DemandsNanAndTheSameInfinityWhereTheTruthHasThem) {
  for (double special : {kNan, kInf, -kInf}) {
    Fixture f;
    f.truth.data_as<double>()[7] = special;
    EXPECT_FALSE(f.compare().ok) << "a number where the truth is " << special;
    f.got.data_as<double>()[7] = special;
    EXPECT_TRUE(f.compare().ok) << special << ": " << f.compare().report;
    f.got.data_as<double>()[7] = std::isnan(special) ? kInf : -special;
    EXPECT_FALSE(f.compare().ok) << "the wrong special where the truth is " << special;
  }
}

TEST(Comparator, RejectsBudgetsThatAcceptAnything) {
  for (double budget : {kNan, kInf, -1.0}) {
    Fixture f;
    f.budget.data_as<double>()[5] = budget;
    EXPECT_FALSE(f.compare().ok) << budget;
  }
}

TEST(Comparator, RejectsSignFlipsOfEitherSign) {
  Fixture positive, negative;
  positive.at(0, 0) = -positive.at(0, 0);
  negative.at(0, 1) = -negative.at(0, 1);
  EXPECT_FALSE(positive.compare().ok);
  EXPECT_FALSE(negative.compare().ok);
}

TEST(Comparator, RejectsErrorsBetweenTwoNegativeNumbers) {
  for (double factor : {0.5, 2.0}) {
    Fixture f;
    ASSERT_LT(f.at(0, 1), 0);
    f.at(0, 1) *= factor;
    EXPECT_FALSE(f.compare().ok) << factor;
  }
}

TEST(Comparator, RejectsZeros) {
  Fixture all, one;
  fill(all.got, 0);
  EXPECT_FALSE(all.compare().ok);
  one.at(3, 3) = 0;
  EXPECT_FALSE(one.compare().ok);
}

TEST(Comparator, RejectsSwappedRows) {
  Fixture f;
  for (int64_t c = 0; c < kColumns; ++c) std::swap(f.at(0, c), f.at(2, c));
  EXPECT_FALSE(f.compare().ok);
}

TEST(Comparator, RejectsOffByOne) {
  Fixture f;
  for (int64_t n = f.got.numel() - 1; n > 0; --n) {
    f.got.data_as<double>()[n] = f.got.data_as<double>()[n - 1];
  }
  EXPECT_FALSE(f.compare().ok);
}

TEST(Comparator, RejectsOneUlpWithoutBudget) {
  Fixture f;
  fill(f.budget, 0);
  EXPECT_TRUE(f.compare().ok) << f.compare().report;
  f.at(1, 1) = std::nextafter(f.at(1, 1), 0);
  EXPECT_FALSE(f.compare().ok);
}

TEST(Comparator, RejectsWrongShapesAlsoEmptyOnes) {
  Fixture f;
  const Tensor empty(DType::kFloat64, {0, kColumns}), other_empty(DType::kFloat64, {0, 1});
  const Tensor flat(DType::kFloat64, {kRows * kColumns}), undefined;
  const auto ok = [](const Tensor& got, const Tensor& truth, const Tensor& budget) {
    return compare_within_budget(got, truth, budget, 1).ok;
  };
  EXPECT_TRUE(ok(empty, empty, empty));
  EXPECT_FALSE(ok(empty, f.truth, f.budget));
  EXPECT_FALSE(ok(f.got, empty, empty));
  EXPECT_FALSE(ok(empty, other_empty, other_empty));
  EXPECT_FALSE(ok(flat, f.truth, f.budget));
  EXPECT_FALSE(ok(f.got, f.truth, flat));
  EXPECT_FALSE(ok(undefined, undefined, undefined));
}

TEST(Comparator, RejectsATruthThatIsNotFloat64) {
  Fixture f;
  const Tensor rounded(DType::kFloat32, {kRows, kColumns});
  EXPECT_FALSE(compare_within_budget(f.got, rounded, f.budget, 1).ok);
  EXPECT_FALSE(compare_within_budget(f.got, f.truth, rounded, 1).ok);
  EXPECT_FALSE(
      compare_within_budget(Tensor(DType::kInt64, {kRows, kColumns}), f.truth, f.budget, 1).ok);
}

TEST(Comparator, DistrustsComparisonsThatZeroWouldPass) {
  Fixture f;
  for (int64_t n = 0; n < f.budget.numel(); ++n) {
    f.budget.data_as<double>()[n] = 2 * std::abs(f.truth.data_as<double>()[n]);
  }
  EXPECT_FALSE(f.compare().ok);
  EXPECT_NE(f.compare().report.find("proves nothing"), std::string::npos) << f.compare().report;
  fill(f.got, 0);
  EXPECT_FALSE(f.compare().ok);
  EXPECT_TRUE(compare_within_budget(f.got, f.truth, f.budget, 1, Zeros::kPlausible).ok);
}

TEST(Comparator, ReadsStridesAndFloat32) {
  Fixture f;
  std::vector<float> storage(static_cast<size_t>(2 * kRows * kColumns), 77.0f);
  const int64_t shape[] = {kRows, kColumns}, strides[] = {2, 2 * kRows};
  const TensorView view(storage.data(), DType::kFloat32, shape, strides);
  fill_with(view, [&](const Index& index) { return read(f.truth, index); });
  EXPECT_TRUE(compare_within_budget(view, f.truth, f.budget, 1).ok);
  storage[2] += 1;
  EXPECT_FALSE(compare_within_budget(view, f.truth, f.budget, 1).ok);
}

TEST(Comparator, ExpectationFailsTheTest) {
  Fixture f;
  f.at(0, 0) = 0;
  EXPECT_NONFATAL_FAILURE(expect_within_budget(f.got, f.truth, f.budget, {"self-test", "zero"}),
                          "zero");
}

TEST(RatioAlarm, NoticesTwiceTheNaiveError) {
  Fixture f, naive;
  naive.at(1, 1) *= 1 + 1.0 / 1024;
  f.at(1, 1) *= 1 + 1.5 / 1024;
  EXPECT_TRUE(compare_with_naive(f.got, naive.got, f.truth).ok);
  f.at(1, 1) = f.truth.data_as<double>()[kColumns + 1] * (1 + 3.0 / 1024);
  EXPECT_FALSE(compare_with_naive(f.got, naive.got, f.truth).ok);
  f.at(1, 1) = kNan;
  EXPECT_FALSE(compare_with_naive(f.got, naive.got, f.truth).ok);
  fill(f.got, 0);
  EXPECT_FALSE(compare_with_naive(f.got, naive.got, f.truth).ok);
}

TEST(RatioAlarm, NoticesAMeanErrorBehindASmallWorstOne) {
  Fixture f, naive;
  naive.at(3, 5) *= 1 + 1.0 / 1024;
  for (int64_t n = 0; n < f.got.numel(); ++n) f.got.data_as<double>()[n] *= 1 + 0.5 / 1024;
  EXPECT_FALSE(compare_with_naive(f.got, naive.got, f.truth).ok);
}

TEST(SameBits, DistinguishesZerosUlpsShapesAndDtypes) {
  Fixture f;
  const auto same = [](const Tensor& a, const Tensor& b) { return compare_bits(a, b).ok; };
  EXPECT_TRUE(same(f.got, f.truth));
  f.at(2, 2) = std::nextafter(f.at(2, 2), 0);
  EXPECT_FALSE(same(f.got, f.truth));
  EXPECT_NE(compare_bits(f.got, f.truth).report.find("[2, 2]"), std::string::npos);

  Tensor zero(DType::kFloat32, {1}), minus_zero(DType::kFloat32, {1});
  fill(minus_zero, -0.0);
  EXPECT_FALSE(same(zero, minus_zero));
  fill(zero, kNan);
  EXPECT_FALSE(same(zero, minus_zero));
  fill(minus_zero, -kNan);
  EXPECT_TRUE(same(zero, minus_zero));
  EXPECT_FALSE(same(zero, Tensor(DType::kFloat64, {1})));
  EXPECT_FALSE(same(zero, Tensor(DType::kFloat32, {1, 1})));
  EXPECT_FALSE(same(Tensor(), Tensor()));
}

TEST(Ledger, JudgesUsesByTheTable) {
  std::istringstream table("# suite limit\na 0.5   # why\nb 0.25\n\n");
  const Ledger limits = read_limits(table);
  EXPECT_EQ(limits.size(), 2u);
  EXPECT_TRUE(judge({{"a", 0.4}, {"b", 0.25}}, limits).ok);
  EXPECT_FALSE(judge({{"a", 0.4}, {"b", 0.26}}, limits).ok);
  EXPECT_FALSE(judge({{"a", kNan}}, limits).ok);
  EXPECT_FALSE(judge({{"unknown", 0.0}}, limits).ok);
  EXPECT_NE(judge({{"a", 0.001}}, limits).table.find("decoration"), std::string::npos);
}

}  // namespace
}  // namespace polyhead::oracle
