#include "report/head_stats.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace polyhead {
namespace {

Tensor matrix(int64_t rows, int64_t columns, std::initializer_list<double> values) {
  Tensor out(DType::kFloat64, {rows, columns});
  std::copy(values.begin(), values.end(), out.data_as<double>());
  return out;
}

TEST(HeadStats, PreviousTokenHead) {
  const HeadStats stats = head_stats(matrix(3, 3, {1, 0, 0, 1, 0, 0, 0, 1, 0}));
  EXPECT_DOUBLE_EQ(stats.entropy_bits, 0);
  EXPECT_DOUBLE_EQ(stats.previous, 2.0 / 3);
  EXPECT_DOUBLE_EQ(stats.diagonal, 1.0 / 3);
  EXPECT_DOUBLE_EQ(stats.first, 2.0 / 3);
  EXPECT_DOUBLE_EQ(stats.next, 0);
  EXPECT_DOUBLE_EQ(stats.mean_distance, 2.0 / 3);
}

TEST(HeadStats, EvenHeadHasTheEntropyOfItsWidth) {
  const HeadStats stats = head_stats(matrix(1, 4, {0.25, 0.25, 0.25, 0.25}));
  EXPECT_DOUBLE_EQ(stats.entropy_bits, 2);
  EXPECT_DOUBLE_EQ(stats.mean_distance, 1.5);
  EXPECT_DOUBLE_EQ(stats.next, 0.25);
}

TEST(HeadStats, EmptyAndNanRowsDoNotCount) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const HeadStats stats = head_stats(matrix(3, 2, {0, 0, nan, nan, 0, 1}));
  EXPECT_DOUBLE_EQ(stats.previous, 1);
  const Tensor blanks[] = {matrix(0, 2, {}), matrix(1, 2, {0, 0}), matrix(2, 2, {0, 0, nan, nan})};
  for (const Tensor& blank : blanks) {
    const HeadStats none = head_stats(blank);
    EXPECT_TRUE(std::isnan(none.entropy_bits) && std::isnan(none.first)) << blank.shape_string();
  }
}

// Rows and columns a b c a b a.
TEST(InductionScore, IsTheWeightOnWhatFollowedEachEarlierOccurrence) {
  const std::vector<std::string> tokens = {"a", "b", "c", "a", "b", "a"};
  Tensor weights(DType::kFloat64, {6, 6});
  auto* w = weights.data_as<double>();
  const auto set = [&](int64_t query, int64_t key, double weight) { w[query * 6 + key] = weight; };
  set(3, 1, 0.5);   // a -> b
  set(3, 3, 0.5);   // itself
  set(4, 2, 0.75);  // b -> c
  set(4, 1, 0.25);  // b -> b: a duplicate, not what followed
  set(5, 1, 0.25);  // a -> b, the first
  set(5, 4, 0.5);   // a -> b, the second
  set(2, 1, 1);     // c stood nowhere before
  EXPECT_DOUBLE_EQ(induction_score(weights, tokens), (0.5 + 0.75 + 0.75) / 3);
  for (int64_t key = 0; key < 6; ++key) set(4, key, 0);  // sees nothing: does not count
  EXPECT_DOUBLE_EQ(induction_score(weights, tokens), (0.5 + 0.75) / 2);
  set(3, 1, std::numeric_limits<double>::quiet_NaN());
  EXPECT_DOUBLE_EQ(induction_score(weights, tokens), 0.75 / 2);
}

TEST(InductionScore, IsNanWhereNoTokenComesAgain) {
  const Tensor weights = matrix(2, 2, {1, 0, 1, 0});
  const std::vector<std::string> different = {"a", "b"}, twice = {"a", "a"};
  EXPECT_TRUE(std::isnan(induction_score(weights, different)));
  EXPECT_TRUE(std::isnan(induction_score(weights, twice)));  // what followed is the token itself
  EXPECT_TRUE(std::isnan(induction_score(matrix(0, 0, {}), {})));
}

TEST(HeadStats, ReadsFloat32ThroughStrides) {
  Tensor weights(DType::kFloat32, {2, 2});
  weights.data_as<float>()[1] = 1;  // row 0 looks at 1; row 1 is empty
  EXPECT_DOUBLE_EQ(head_stats(weights).next, 1);
  EXPECT_DOUBLE_EQ(head_stats(weights.view().transposed(0, 1)).previous, 1);
}

}  // namespace
}  // namespace polyhead
