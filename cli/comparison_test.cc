#include "comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

namespace polyhead::cli {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

Comparison judge(double got, double want, double budget) {
  return compare({&got, {1}}, {&want, {1}}, {&budget, {1}});
}

TEST(Comparison, AnErrorUpToTheBudgetIsWithin) {
  EXPECT_TRUE(judge(1, 1, 0).within_budget());
  EXPECT_TRUE(judge(1.5, 1, 0.5).within_budget());
  EXPECT_FALSE(judge(1.5, 1, 0.25).within_budget());
  EXPECT_FALSE(judge(-1.5, -1, 0.25).within_budget());
  EXPECT_FALSE(judge(-1, 1, 0.25).within_budget());
  EXPECT_FALSE(judge(0, 1e-300, 0).within_budget());
}

TEST(Comparison, WhatIsNotFiniteMustAgree) {
  EXPECT_FALSE(judge(kNan, 1, kInf).within_budget());
  EXPECT_FALSE(judge(1, kNan, 1).within_budget());
  EXPECT_FALSE(judge(kInf, -kInf, kInf).within_budget());
  EXPECT_FALSE(judge(kInf, 1, 1).within_budget());
  EXPECT_FALSE(judge(1.5, 1, kNan).within_budget());
}

TEST(Comparison, WhatIsNotFiniteOnBothSidesShowsNothing) {
  for (const double x : {kNan, kInf}) {
    EXPECT_FALSE(judge(x, x, 0).within_budget());
    const double got[] = {x, 2}, want[] = {x, 1}, budget[] = {0, 4};
    const Comparison some = compare({got, {2}}, {want, {2}}, {budget, {2}});
    EXPECT_TRUE(some.within_budget());
    EXPECT_EQ(some.finite, 1);
    EXPECT_EQ(some.both_nan, std::isnan(x) ? 1 : 0);
    EXPECT_EQ(where_text(some.where), "[1]");
  }
}

TEST(Comparison, CountsWhatOverflowed) {
  EXPECT_EQ(judge(kInf, 1e39, 1).overflowed, 1);
  EXPECT_EQ(judge(kNan, 1e39, 1).overflowed, 1);
  EXPECT_EQ(judge(kNan, kNan, 1).overflowed, 0);
  EXPECT_EQ(judge(1, kNan, 1).overflowed, 0);
}

TEST(Comparison, NamesTheElementWithTheLargestShare) {
  const float got[] = {1, 2, 3.5f, 4, 5, 6.25f};
  const double want[] = {1, 2, 3, 4, 5, 6};
  const double budget[] = {1, 1, 10, 1, 1, 0.125};
  const Comparison result = compare({got, {2, 3}}, {want, {2, 3}}, {budget, {2, 3}});
  EXPECT_EQ(result.count, 6);
  EXPECT_EQ(result.worst_error, 0.5);
  EXPECT_EQ(result.worst_share, 2.0);
  EXPECT_EQ(where_text(result.where), "[1, 2]");
  EXPECT_EQ(result.got, 6.25);
  EXPECT_EQ(result.want, 6);
  EXPECT_EQ(result.budget, 0.125);
  EXPECT_FALSE(result.within_budget());
}

TEST(Comparison, ReadsThroughStrides) {
  const double got[] = {1, 2, 3, 4}, want[] = {1, 3, 2, 4}, budget[] = {0, 0, 0, 0};
  EXPECT_TRUE(
      compare(ConstTensorView(got, {2, 2}).transposed(0, 1), {want, {2, 2}}, {budget, {2, 2}})
          .within_budget());
}

TEST(Comparison, NothingIsWithinBudget) {
  EXPECT_TRUE(compare({static_cast<double*>(nullptr), {0, 3}},
                      {static_cast<double*>(nullptr), {0, 3}},
                      {static_cast<double*>(nullptr), {0, 3}})
                  .within_budget());
}

}  // namespace
}  // namespace polyhead::cli
